//! Attestation finds code that writes the context or keeps what no command removes, by whichever way a tenant reaches it; what
//! it prints as a fix is one; code that does neither is let be.

use partywall::context::seal::Form;
use partywall::control::attest::{Finding, Severity};

use super::KEYS;
use super::attest::{attest, plan_of};
use super::proxied::{before, key_file, shard};

/// What is planted, and the object under which it is to be found as `context_setter`.
const SETTERS: &[(&str, &str)] = &[
    (
        "CREATE FUNCTION s1(n text, v text) RETURNS text LANGUAGE sql AS 'SELECT set_config(n, v, true)'",
        "public.s1(text,text)",
    ),
    (
        "CREATE FUNCTION s2(v text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('App.Current_Org_Id', v, true) $$",
        "public.s2(text)",
    ),
    (
        "CREATE FUNCTION s3(n text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(n, v, false); END $$",
        "public.s3(text,text)",
    ),
    (
        "CREATE FUNCTION s4(n text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SET LOCAL %I = %L', n, v); END $$",
        "public.s4(text,text)",
    ),
    (
        "CREATE FUNCTION s5(n text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SET ' || quote_ident(n) || ' = ' || quote_literal(v); END $$",
        "public.s5(text,text)",
    ),
    ("CREATE FUNCTION s6(q text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE q; END $$", "public.s6(text)"),
    (
        "CREATE FUNCTION s7(text) RETURNS SETOF record LANGUAGE plpgsql AS $$ BEGIN RETURN QUERY EXECUTE $1; END $$",
        "public.s7(text)",
    ),
    (
        "CREATE FUNCTION s9() RETURNS bigint LANGUAGE sql SET app.current_org_id = 'globex' AS 'SELECT count(*) FROM canary'",
        "public.s9()",
    ),
    (
        "CREATE FUNCTION s10() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET LOCAL app.current_roles = 'admin'; END $$",
        "public.s10()",
    ),
    (
        "CREATE FUNCTION s11(n text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('SELECT set_config(%L, %L, true)', n, v); END $$",
        "public.s11(text,text)",
    ),
    (
        "CREATE FUNCTION s12(n text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN UPDATE pg_settings SET setting = v WHERE name = n; END $$",
        "public.s12(text,text)",
    ),
    (
        "CREATE FUNCTION s13(n text, v text) RETURNS text LANGUAGE sql AS $$ SELECT pg_catalog.set_config ( 'app.' || n, v, true) $$",
        "public.s13(text,text)",
    ),
    (
        "CREATE FUNCTION s14(n text, v text) RETURNS text LANGUAGE sql AS $$ SELECT \"set_config\" /* ('my.own') */ (n, v, true) $$",
        "public.s14(text,text)",
    ),
    (
        "CREATE PROCEDURE s15(n text, v text) LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(n, v, false); END $$",
        "public.s15(text,text)",
    ),
    (
        "CREATE FUNCTION s16(n text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SET LOCAL app.' || n || ' = ' || v; END $$",
        "public.s16(text,text)",
    ),
    // By a trigger, which asks nobody's right to execute it; on a table, a part of it, what its deletions cascade to, a view.
    (
        "CREATE FUNCTION t1() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.current_org_id', NEW.body, false); RETURN NEW; END $$; REVOKE ALL ON FUNCTION t1() FROM PUBLIC; CREATE TRIGGER t1 BEFORE INSERT ON canary FOR EACH ROW EXECUTE FUNCTION t1()",
        "public.t1()",
    ),
    (
        "CREATE FUNCTION t2() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(TG_ARGV[0], NEW.body, false); RETURN NEW; END $$; CREATE TRIGGER t2 BEFORE UPDATE ON ledger FOR EACH ROW EXECUTE FUNCTION t2('app.current_org_id')",
        "public.t2()",
    ),
    (
        "CREATE TABLE parts (org_id text, n int, body text) PARTITION BY LIST (n); CREATE TABLE part PARTITION OF parts DEFAULT; SELECT partywall.protect('parts'), partywall.protect('part'); GRANT INSERT ON parts TO partywall_app; CREATE FUNCTION t3() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(NEW.body, NEW.body, false); RETURN NEW; END $$; CREATE TRIGGER t3 BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION t3()",
        "public.t3()",
    ),
    (
        "CREATE TABLE leaf (org_id text, id int, body text, FOREIGN KEY (org_id, id) REFERENCES canary ON DELETE CASCADE); CREATE FUNCTION t4() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(OLD.body, OLD.body, false); RETURN OLD; END $$; CREATE TRIGGER t4 AFTER DELETE ON leaf FOR EACH ROW EXECUTE FUNCTION t4()",
        "public.t4()",
    ),
    (
        "CREATE VIEW v1 AS SELECT body FROM canary WHERE false; GRANT INSERT ON v1 TO partywall_app; CREATE FUNCTION t5() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(NEW.body, NEW.body, false); RETURN NEW; END $$; CREATE TRIGGER t5 INSTEAD OF INSERT ON v1 FOR EACH ROW EXECUTE FUNCTION t5()",
        "public.t5()",
    ),
    // By what calls it: a function with other rights, an aggregate, and where no schema need be named.
    (
        "CREATE SCHEMA hidden; CREATE FUNCTION hidden.i1(n text, v text) RETURNS text LANGUAGE sql AS 'SELECT set_config(n, v, true)'; CREATE FUNCTION o1(n text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = hidden AS $$ SELECT i1(n, 'x') $$",
        "hidden.i1(text,text)",
    ),
    (
        "CREATE FUNCTION hidden.i2(a text, b text) RETURNS text LANGUAGE sql AS 'SELECT set_config(a, b, true)'; REVOKE ALL ON FUNCTION hidden.i2 FROM PUBLIC; CREATE AGGREGATE a2(text) (SFUNC = hidden.i2, STYPE = text)",
        "hidden.i2(text,text)",
    ),
    (
        "CREATE FUNCTION hidden.i3(v text) RETURNS boolean LANGUAGE sql AS $$ SELECT set_config('app.current_org_id', v, true) IS NOT NULL $$; CREATE DOMAIN d3 AS text CHECK (hidden.i3(VALUE))",
        "hidden.i3(text)",
    ),
    (
        "CREATE TYPE c4 AS (v text); CREATE FUNCTION hidden.i4(v c4) RETURNS int LANGUAGE sql AS $$ SELECT length(set_config('app.current_org_id', v.v, true)) $$; CREATE CAST (c4 AS int) WITH FUNCTION hidden.i4(c4)",
        "hidden.i4(public.c4)",
    ),
    (
        "CREATE FUNCTION hidden.i5(a text, b text) RETURNS text LANGUAGE sql AS 'SELECT set_config(a, b, true)'; CREATE OPERATOR public.|=| (LEFTARG = text, RIGHTARG = text, FUNCTION = hidden.i5)",
        "hidden.i5(text,text)",
    ),
    (
        "CREATE FUNCTION hidden.i6() RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.current_org_id', 'globex', true) $$; ALTER TABLE ledger ALTER body SET DEFAULT hidden.i6()",
        "hidden.i6()",
    ),
];

/// Those with a body in standard SQL, which PostgreSQL has from 14 on.
const STANDARD: &[(&str, &str)] = &[
    (
        "CREATE FUNCTION s20(n text, v text) RETURNS text BEGIN ATOMIC SELECT set_config(n, v, true); END",
        "public.s20(text,text)",
    ),
    (
        "CREATE FUNCTION s21(v text) RETURNS text LANGUAGE sql RETURN set_config('app.current_org_id', v, true)",
        "public.s21(text)",
    ),
];

/// Code of which nothing is to be said.
const HARMLESS: &[&str] = &[
    "CREATE FUNCTION h1(v text) RETURNS text LANGUAGE sql SET search_path = public AS $$ SELECT set_config('my.own', v, true) $$",
    "CREATE FUNCTION h2(v text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('request.jwt.claim.' || v, v, true) $$",
    "CREATE FUNCTION h3(n text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'set % to', n; SET LOCAL statement_timeout = '5s'; EXECUTE 'SET LOCAL statement_timeout = ' || quote_literal(n); EXECUTE format('UPDATE canary SET %I = 1', n); END $$",
    "CREATE FUNCTION h4(c text) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE r bigint; BEGIN EXECUTE format('SELECT count(*) FROM %I', c) INTO r; RETURN r; END $$",
    "CREATE FUNCTION h5(n text, v text) RETURNS text LANGUAGE sql AS 'SELECT set_config(n, v, true)'; REVOKE ALL ON FUNCTION h5 FROM PUBLIC",
    "CREATE FUNCTION h6(n text, v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN -- set_config(n, v, true)\n RETURN n; END $$",
    "CREATE FUNCTION h7(c text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'UPDATE ' || quote_ident(c) || ' SET ' || quote_ident(c) || ' = 1'; RETURN 1; END $$",
    "CREATE SCHEMA own_use; CREATE FUNCTION own_use.h8(n text, v text) RETURNS text LANGUAGE sql AS 'SELECT set_config(n, v, true)'",
    "CREATE TABLE imports (a text); CREATE FUNCTION h9() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.current_org_id', NEW.a, true); RETURN NEW; END $$; CREATE TRIGGER h9 BEFORE INSERT ON imports FOR EACH ROW EXECUTE FUNCTION h9()",
    "CREATE FUNCTION h10() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config(TG_ARGV[0], NEW.body, false); RETURN NEW; END $$; CREATE TRIGGER h10 BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION h10('my.last')",
    "CREATE FUNCTION h11() RETURNS text LANGUAGE sql AS $$ SELECT current_setting('app.current_org_id') $$",
];

fn of_kind<'a>(found: &'a [Finding], name: &str) -> Vec<&'a Finding> {
    let unasked = found.iter().find(|finding| finding.name == "not_attested");
    assert_eq!(unasked, None);
    found.iter().filter(|finding| finding.name == name).collect()
}

async fn setters_are_found(form: Form, severity: Severity) {
    let (shard, keys) = (shard(form).await, key_file(KEYS));
    let admin = shard.admin().await;
    let version = super::version(&admin).await;
    let plan = plan_of(&before(&shard, "auto", Some(&keys)));
    for sql in HARMLESS {
        admin.batch_execute(sql).await.expect(sql);
    }
    if version >= 140_000 {
        let standard =
            "CREATE FUNCTION h20(v text) RETURNS text BEGIN ATOMIC SELECT set_config('my.own', v, true); END";
        admin.batch_execute(standard).await.expect(standard);
    }
    let found = attest(&plan, &[]).await;
    assert_eq!(of_kind(&found, "context_setter"), [] as [&Finding; 0]);
    let planted: Vec<_> = SETTERS.iter().chain(STANDARD.iter().filter(|_| version >= 140_000)).collect();
    for (sql, _) in &planted {
        admin.batch_execute(sql).await.expect(sql);
    }
    let found = attest(&plan, &[]).await;
    let setters = of_kind(&found, "context_setter");
    for (sql, object) in &planted {
        let one = setters.iter().find(|finding| finding.object == *object);
        let one = one.unwrap_or_else(|| panic!("{sql}: {object} is not among {setters:#?}"));
        assert_eq!(one.severity, severity, "{sql}");
        admin.batch_execute(&one.mend).await.expect(&one.mend);
    }
    assert_eq!(setters.len(), planted.len(), "{setters:#?}");
    let found = attest(&plan, &[]).await;
    assert_eq!(of_kind(&found, "context_setter"), [] as [&Finding; 0], "what is printed as a fix is one");
}

#[tokio::test]
async fn code_that_writes_a_plain_context_is_a_breach() {
    setters_are_found(Form::Plain, Severity::Breach).await;
}

#[tokio::test]
async fn code_that_writes_the_settings_beside_a_guarded_context_is_a_warning() {
    setters_are_found(Form::Guarded, Severity::Warn).await;
}

/// Plants, and the objects under which each is to be found; left out where this server cannot have it.
const STATEFUL: &[(&str, &str)] = &[
    // A language as any other: who wrote it does not matter.
    (
        "CREATE LANGUAGE plother HANDLER plpgsql_call_handler; CREATE FUNCTION k1() RETURNS void LANGUAGE plother AS 'BEGIN END'",
        "public.k1()",
    ),
    (
        "CREATE FUNCTION k2() RETURNS trigger LANGUAGE plother AS 'BEGIN RETURN NEW; END'; REVOKE ALL ON FUNCTION k2() FROM PUBLIC; CREATE TRIGGER k2 BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION k2()",
        "public.k2()",
    ),
    (
        "CREATE FUNCTION k3() RETURNS event_trigger LANGUAGE plother AS 'BEGIN END'; CREATE EVENT TRIGGER k3 ON ddl_command_end EXECUTE FUNCTION k3()",
        "public.k3()",
    ),
    (
        "CREATE EXTENSION plperl; CREATE FUNCTION k4(v text) RETURNS text LANGUAGE plperl AS '$_SHARED{v} = shift'",
        "public.k4(text)",
    ),
    (
        "CREATE EXTENSION plpython3u; CREATE FUNCTION k5(v text) RETURNS text LANGUAGE plpython3u AS 'GD[\"v\"] = v'",
        "public.k5(text)",
    ),
    (
        "CREATE EXTENSION pltcl; CREATE FUNCTION k6(v text) RETURNS text LANGUAGE pltcl AS 'set ::v $1'",
        "public.k6(text)",
    ),
    ("CREATE EXTENSION isn", "isn"),
    ("CREATE EXTENSION dblink", "dblink"),
];

/// Extensions whose functions keep nothing, or only settings.
const CLEAN: [&str; 12] = [
    "pg_trgm",
    "unaccent",
    "hstore",
    "ltree",
    "citext",
    "cube",
    "btree_gist",
    "intarray",
    "pgcrypto",
    "uuid-ossp",
    "tablefunc",
    "fuzzystrmatch",
];

#[tokio::test]
async fn code_that_keeps_what_no_command_removes_is_a_breach_until_it_is_revoked() {
    let shard = shard(Form::Plain).await;
    let admin = shard.admin().await;
    let plan = plan_of(&before(&shard, "auto", None));
    for name in CLEAN {
        // Not every server has them all.
        drop(admin.batch_execute(&format!("CREATE EXTENSION \"{name}\"")).await);
    }
    admin
        .batch_execute("CREATE FUNCTION quiet() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'")
        .await
        .expect("makes");
    let found = attest(&plan, &[]).await;
    assert_eq!(of_kind(&found, "session_state"), [] as [&Finding; 0]);
    assert_eq!(of_kind(&found, "extension_unknown"), [] as [&Finding; 0]);
    let version = super::version(&admin).await;
    let mut planted = Vec::new();
    for (sql, object) in STATEFUL {
        let there = admin.batch_execute(sql).await;
        // From 18 on isn's is a setting.
        if there.is_ok() && (*object != "isn" || version < 180_000) {
            planted.push(*object);
        }
    }
    assert!(planted.len() >= 3, "{planted:?}");
    let found = attest(&plan, &[]).await;
    let kept = of_kind(&found, "session_state");
    assert_eq!(kept.len(), planted.len(), "{kept:#?}");
    for object in planted {
        let one = kept.iter().find(|finding| finding.object == object);
        let one = one.unwrap_or_else(|| panic!("{object} is not among {kept:#?}"));
        assert_eq!(one.severity, Severity::Breach);
        admin.batch_execute(&one.mend).await.expect(&one.mend);
    }
    let found = attest(&plan, &[]).await;
    assert_eq!(of_kind(&found, "session_state"), [] as [&Finding; 0], "what is printed as a fix is one");
}

#[tokio::test]
async fn an_extension_that_nobody_knows_is_named() {
    let shard = shard(Form::Plain).await;
    let admin = shard.admin().await;
    let plan = plan_of(&before(&shard, "auto", None));
    // A member of an extension that no list names: an extension's name can be written over by who tests.
    let sql = "SET allow_system_table_mods = on; CREATE EXTENSION pg_trgm; UPDATE pg_extension SET extname = 'nobody_knows' WHERE extname = 'pg_trgm'";
    admin.batch_execute(sql).await.expect(sql);
    let found = attest(&plan, &[]).await;
    let [unknown] = of_kind(&found, "extension_unknown")[..] else { panic!("{found:#?}") };
    assert_eq!((unknown.object.as_str(), unknown.severity), ("nobody_knows", Severity::Note));
    let found = attest(&plan, &[unknown.key()]).await;
    assert!(of_kind(&found, "extension_unknown")[0].allowed);
}
