//! What one session's settings made of a statement, a plan or a function's body is never another session's.

use partywall::context::seal::Form;

use crate::support::{Proxy, Raw, Shard, Wire, until};
use crate::walls::{KEYS, proxied};

/// Texts whose meaning or plan hangs on settings; inside functions too, where PL/pgSQL and SQL keep what they made of them.
const PROBE: &str = "SELECT '01/02/2024'::date::text, ('2024-01-01 12:00'::timestamptz AT TIME ZONE 'UTC')::text, \
    (SELECT count(*)::text FROM (VALUES (1), (NULL)) v(a) WHERE a = NULL), '{NULL}'::text[] IS NULL, \
    to_tsvector('running dogs')::text, (SELECT string_agg(id::text, ',') FROM (SELECT id FROM turned LIMIT 3) t), \
    (SELECT string_agg(x, ',') FROM look), '1'::money::text";

const TABLES: &str = "
    CREATE TABLE turned (id int); INSERT INTO turned SELECT 1000 - g FROM generate_series(1, 999) g;
    CREATE INDEX ON turned (id); VACUUM ANALYZE turned;";
const CODE: &str = "
    CREATE SCHEMA other; CREATE TABLE other.look (x text); INSERT INTO other.look VALUES ('other');
    CREATE TABLE public.look (x text); INSERT INTO public.look VALUES ('public');
    GRANT USAGE ON SCHEMA other TO partywall_app;
    GRANT SELECT ON turned, other.look, public.look TO partywall_app;
    CREATE FUNCTION poison(n text, v text, l boolean) RETURNS text LANGUAGE sql AS $$ SELECT set_config(n, v, l) $$;";

/// Each with a value that changes what the probe answers.
const SETTINGS: [(&str, &str); 7] = [
    ("datestyle", "ISO, DMY"),
    ("timezone", "Asia/Tokyo"),
    ("transform_null_equals", "on"),
    ("default_text_search_config", "simple"),
    ("enable_seqscan", "off"),
    ("search_path", "other, public"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// How a setting comes to be: what to say before the poisoned statements, and after them.
fn ways(name: &str, value: &str) -> Vec<(&'static str, Vec<String>, &'static str)> {
    let set = |local: &str| match name {
        "search_path" => format!("SET {local} {name} = {value}"),
        _ => format!("SET {local} {name} = '{value}'"),
    };
    vec![
        ("SET", vec![set("")], "SELECT 1"),
        ("SET in a transaction", vec!["BEGIN".into(), set("")], "ROLLBACK"),
        ("SET LOCAL", vec!["BEGIN".into(), set("LOCAL")], "COMMIT"),
        ("set_config", vec![format!("SELECT set_config('{name}', '{value}', false)")], "SELECT 1"),
        (
            "set_config, local",
            vec!["BEGIN".into(), format!("SELECT set_config('{name}', '{value}', true)")],
            "ROLLBACK",
        ),
        ("a function", vec![format!("SELECT poison('{name}', '{value}', false)")], "SELECT 1"),
        ("a function, local", vec!["BEGIN".into(), format!("SELECT poison('{name}', '{value}', true)")], "COMMIT"),
    ]
}

async fn admin(shard: &Shard) {
    let admin = shard.admin().await;
    for sql in TABLES.split(';').filter(|sql| !sql.trim().is_empty()) {
        admin.batch_execute(sql).await.expect(sql);
    }
    admin.batch_execute(CODE).await.expect("takes tables and functions");
    let columns = PROBE.strip_prefix("SELECT ").expect("a SELECT");
    for (name, language, body) in [
        ("pl_probe", "plpgsql", format!("BEGIN RETURN (SELECT ROW({columns})::text); END")),
        ("sql_probe", "sql", format!("SELECT ROW({columns})::text WHERE true LIMIT 1")),
        ("pl_compares", "plpgsql", "BEGIN RETURN (date '01/02/2024' = make_date(2024, 1, 2))::text; END".to_owned()),
    ] {
        let sql = format!("CREATE FUNCTION {name}() RETURNS text LANGUAGE {language} VOLATILE AS $body$ {body} $body$");
        admin.batch_execute(&sql).await.expect(name);
    }
}

const CALLS: &str = "SELECT pl_probe(), sql_probe(), pl_compares()";

/// Prepares, binds and runs, some of it so often that a generic plan is made.
async fn use_all(raw: &mut Raw, name: &str) -> Vec<String> {
    let mut heard = Vec::new();
    let prepared = Wire::new().parse(name, PROBE).parse("only", PROBE).bind("", name, &[]).execute("", 0).sync();
    heard.push(raw.converse(prepared, 1).await);
    for _ in 0..6 {
        heard.push(raw.converse(Wire::new().bind("", name, &[]).execute("", 0).sync(), 1).await);
    }
    heard.push(raw.query(PROBE).await);
    heard.push(raw.query(CALLS).await);
    heard.push(raw.query(CALLS).await);
    let close = Wire::new().close(b'S', name).close(b'S', "only").sync();
    raw.converse(close, 1).await;
    heard
}

async fn nobody_is_poisoned(form: Form) {
    let shard = proxied::shard(form).await;
    admin(&shard).await;
    let keys = proxied::key_file(KEYS);
    let keys = (form != Form::Plain).then_some(&keys);
    let proxy = proxied::before_with(&shard, form.as_str(), keys, "warn").pool_size(1).start().await;
    let clean = |heard: Vec<String>| heard.into_iter().map(|line| line.replace("Z T", "Z I")).collect::<Vec<_>>();
    let expected = clean(use_all(&mut Raw::past_the_proxy(&shard, "globex").await, "mine").await);
    let (mut globex, mut colleague) = (proxy.raw("globex").await, proxy.raw("acme").await);
    // Within an organization it takes the attestor to know that functions may leave something.
    let show = "SELECT nullif(current_setting('shop.customer', true), '')";
    until("the attestor has looked", async || {
        let mut acme = proxy.raw("acme").await;
        acme.query("SELECT poison('shop.customer', 'of another session', false)").await;
        colleague.query(show).await == "T D(∅) C(SELECT 1) ZI"
    })
    .await;
    let mut changed = 0;
    for (name, value) in SETTINGS {
        for (way, before, after) in ways(name, value) {
            let mut acme = proxy.raw("acme").await;
            for sql in before {
                let heard = acme.query(&sql).await;
                assert!(heard.contains("C(") && !heard.contains("E("), "{sql}: {heard}");
            }
            let poisoned = use_all(&mut acme, "mine").await;
            changed += usize::from(poisoned[0].replace("ZT", "ZI") != expected[0]);
            acme.query(after).await;
            assert_eq!(use_all(&mut colleague, "mine").await, expected, "{form}: a colleague, after {way} of {name}");
            assert_eq!(use_all(&mut globex, "mine").await, expected, "{form}: globex, after {way} of {name}");
        }
    }
    assert!(changed >= 6 * 7, "the poison works: {changed}");
}

#[tokio::test]
async fn what_settings_made_of_statements_is_nobody_elses_where_the_context_is_plain() {
    nobody_is_poisoned(Form::Plain).await;
}

#[tokio::test]
async fn what_settings_made_of_statements_is_nobody_elses_where_the_context_is_guarded() {
    nobody_is_poisoned(Form::Guarded).await;
}

#[tokio::test]
async fn a_session_with_the_same_context_is_not_the_same_session() {
    let proxy = Proxy::before(Shard::shared()).pool_size(1).start().await;
    let (mut one, mut other) = (proxy.raw("acme").await, proxy.raw("acme").await);
    for _ in 0..5 {
        let inserted = one.query("INSERT INTO ledger (body) VALUES ('counted') RETURNING id").await;
        assert_eq!(one.query("SELECT lastval()").await, inserted.replace("INSERT 0 1", "SELECT 1"), "its own");
        assert_eq!(other.query("SELECT lastval()").await, "T E(55000) ZI");
        assert_eq!(other.query("SELECT currval('ledger_id_seq')").await, "T E(55000) ZI");
        // By itself, and within the transaction that took the value.
        let taken = other.query("BEGIN; INSERT INTO ledger (body) VALUES ('x'); SELECT lastval() > 0; COMMIT").await;
        assert!(taken.contains("D(t)"), "{taken}");
        let ticket = one.query("SELECT nextval('ticket')").await;
        assert_eq!(other.query("SELECT currval('ticket')").await, "T E(55000) ZI", "after {ticket}");
        one.query("SELECT nextval('ticket')").await;
        one.query("DISCARD ALL").await;
        assert_eq!(one.query("SELECT lastval()").await, "T E(55000) ZI");
    }
}

#[tokio::test]
async fn what_a_function_took_from_a_sequence_is_not_told_to_another_session() {
    let shard = Shard::start();
    let take = "CREATE FUNCTION take() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('ticket') $$";
    shard.admin().await.batch_execute(take).await.expect("makes a function");
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let asks = |sql: &str| Wire::new().parse("", sql).bind("", "", &[]).execute("", 0).sync();
    // No statement shows that anything was taken.
    for question in ["SELECT lastval()", "SELECT currval('ticket')"] {
        let (mut one, mut other) = (proxy.raw("acme").await, proxy.raw("acme").await);
        let taken = one.query("SELECT take()").await;
        assert_eq!(other.query(question).await, "T E(55000) ZI", "after {taken}");
        one.query("SELECT take()").await;
        assert!(other.converse(asks(question), 1).await.contains("E(55000)"));
        // Its own it hears, as long as nobody else was there.
        let own = other.query("SELECT take()").await;
        assert_eq!(other.query(question).await, own);
    }
}

#[tokio::test]
async fn a_value_that_was_overtaken_on_another_connection_is_not_told() {
    let proxy = Proxy::before(Shard::shared()).pool_size(3).start().await;
    let (mut one, mut other) = (proxy.raw("acme").await, proxy.raw("acme").await);
    one.query("SELECT nextval('ticket')").await;
    // The connection that remembers is taken, so the session goes on with another.
    other.query("BEGIN").await;
    let mut third = proxy.raw("acme").await;
    third.query("BEGIN").await;
    other.query("COMMIT").await;
    let second = one.query("SELECT nextval('ticket')").await;
    third.query("COMMIT").await;
    for _ in 0..3 {
        let heard = one.query("SELECT lastval()").await;
        assert!(heard == second || heard == "T E(55000) ZI", "{heard} after {second}");
    }
}

#[tokio::test]
async fn who_prepares_a_text_anew_hears_of_definitions_as_they_are() {
    let shard = Shard::start();
    let admin = shard.admin().await;
    let made = "CREATE TABLE defined (v date); GRANT SELECT, INSERT ON defined TO partywall_app";
    admin.batch_execute(made).await.expect("makes a table");
    let proxy = Proxy::before(&shard).pool_size(1).start().await;
    let (mut direct, mut old) = (Raw::past_the_proxy(&shard, "acme").await, proxy.raw("acme").await);
    let insert = "INSERT INTO defined VALUES ($1)";
    let first =
        || Wire::new().parse("i", insert).describe(b'S', "i").bind("", "i", &["2024-01-02"]).execute("", 0).sync();
    assert_eq!(old.converse(first(), 1).await, direct.converse(first(), 1).await);
    admin.batch_execute("ALTER TABLE defined ALTER v TYPE text").await.expect("alters");
    let mut new = proxy.raw("acme").await;
    let mut new_direct = Raw::past_the_proxy(&shard, "acme").await;
    let again = || Wire::new().parse("j", insert).describe(b'S', "j").bind("", "j", &["no date"]).execute("", 0).sync();
    let types = |messages: &[crate::support::raw::Message]| {
        messages.iter().find(|message| message.tag == b't').map(|message| message.body.clone())
    };
    for (direct, proxied) in [(&mut direct, &mut old), (&mut new_direct, &mut new)] {
        direct.send(again()).await;
        proxied.send(again()).await;
        let (expected, heard) = (direct.until_ready().await, proxied.until_ready().await);
        assert_eq!(types(&heard), types(&expected), "the parameter is a text now");
        let brief = crate::support::raw::brief;
        assert_eq!(brief(&heard), brief(&expected));
    }
    // In a failed transaction, and behind an error, nothing is prepared and nothing is lost.
    let steps = [
        Wire::new().query("BEGIN"),
        Wire::new().query("SELECT 1/0"),
        Wire::new().parse("k", insert).sync(),
        Wire::new().query("ROLLBACK"),
        Wire::new().bind("", "nothing", &[]).parse("k", insert).sync(),
        Wire::new().parse("k", insert).bind("", "k", &["kept"]).execute("", 0).sync(),
        Wire::new().bind("", "j", &["kept"]).execute("", 0).sync(),
    ];
    for step in steps {
        assert_eq!(new.converse(step.clone(), 1).await, new_direct.converse(step, 1).await);
    }
}
