//! The same COPY into the protected table by the proxy, and into its unprotected twin on a connection past it.

use super::{copy, shard, staged, turn};
use crate::support::raw::brief;
use crate::support::{Message, Raw, Wire, stride};

/// What is compared of an error beside its code, sentence and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// Everything: it comes while the data is read.
    Whole,
    /// It comes from the INSERT, which knows no lines; and details of rows are not told where policies apply.
    Later,
}

type Case = (&'static str, &'static [u8], Errors);

use Errors::{Later, Whole};

const CASES: &[Case] = &[
    ("COPY loaded (id, body) FROM STDIN", b"1\ta\n2\t\\N\n3\tback\\\\slash\\ttab\n", Whole),
    ("COPY loaded (id, body) FROM STDIN", b"1\ta\n\\.\n", Whole),
    ("COPY loaded (id, body) FROM STDIN", b"", Whole),
    ("COPY loaded FROM STDIN", b"acme\t1\tb\tglad\t{1,2}\t3.456\t7\tfive5\t\\N\t1000042\n", Whole),
    ("copy/* c */\"loaded\"(body,id)from stdin csv header quote as '''';", b"x,y\n'a, b',1\n,2\n'',3\n", Whole),
    (
        "COPY public.loaded (id, body, \"Odd \"\"Name\", short) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', NULL 'nil', \
         QUOTE '~', ESCAPE '!', FORCE_NULL (body), FORCE_NOT_NULL (\"Odd \"\"Name\"), ENCODING 'latin1')",
        b"h;h;h;h\n1;~nil~;nil;\xe4\n2;~!~~;~nil~;nil\n",
        Whole,
    ),
    ("COPY loaded (id, body) FROM STDIN (FORMAT csv, HEADER match)", b"id,body\n1,a\n", Whole),
    ("COPY loaded (id, body) FROM STDIN (FORMAT csv, HEADER match)", b"id,soul\n1,a\n", Whole),
    ("COPY loaded (id, body) FROM STDIN WHERE id > 1 AND body <> 'b'", b"1\ta\n2\tb\n3\tc\n", Whole),
    ("COPY loaded (id) FROM STDIN WHERE body = 'nothing' AND mood IS NULL AND id IN (1, 3)", b"1\n2\n3\n", Whole),
    ("COPY loaded (id) FROM STDIN WHERE id > (SELECT 1)", b"1\n", Whole),
    ("COPY loaded (id) FROM STDIN WHERE count(*) > 1", b"1\n", Whole),
    ("COPY loaded (id) FROM STDIN WHERE nonesuch > 1", b"1\n", Whole),
    ("COPY loaded (id, mood, tags, positive) FROM STDIN", b"1\tsad\t{{1},{2}}\t3\n2\t\\N\t{}\t\\N\n", Whole),
    ("COPY loaded (id, number) FROM STDIN", b"1\t1000077\n2\t1000078\n", Whole),
    // Rows that a trigger leaves out are not counted, and its words are heard.
    ("COPY loaded (id) FROM STDIN", b"1\n-1\n0\n-2\n", Later),
    // Data that cannot be read.
    ("COPY loaded (id, body) FROM STDIN", b"1\ta\nx\tb\n", Whole),
    ("COPY loaded (id, body) FROM STDIN", b"1\ta\n2\n", Whole),
    ("COPY loaded (id, body) FROM STDIN", b"1\ta\tb\n", Whole),
    ("COPY loaded (id, body) FROM STDIN", b"1\t\xff\n", Whole),
    ("COPY loaded (id, body) FROM STDIN", b"1\ta\r\n2\tb\n", Whole),
    ("COPY loaded (id, mood) FROM STDIN", b"1\tbored\n", Whole),
    ("COPY loaded (id, positive) FROM STDIN", b"1\t-1\n", Whole),
    ("COPY loaded (id, short) FROM STDIN", b"1\tlonger\n", Whole),
    ("COPY loaded (id, amount) FROM STDIN", b"1\t12345\n", Whole),
    ("COPY loaded (id, tags) FROM STDIN", b"1\t{1\n", Whole),
    ("COPY loaded (id, body) FROM STDIN CSV", b"1,\"a\n", Whole),
    ("COPY loaded (id) FROM STDIN (FORMAT binary)", b"no signature at all", Whole),
    // Statements that cannot be.
    ("COPY loaded (id, soul) FROM STDIN", b"", Whole),
    ("COPY loaded (id, id) FROM STDIN", b"", Whole),
    ("COPY loaded (id, twice) FROM STDIN", b"", Whole),
    ("COPY loaded (ctid) FROM STDIN", b"", Whole),
    ("COPY loaded (id) FROM STDIN (nonsense 'x')", b"", Whole),
    ("COPY loaded (id) FROM STDIN (FORMAT nonsense)", b"", Whole),
    ("COPY loaded (id) FROM STDIN (FORMAT csv, FORCE_NULL (body))", b"", Whole),
    ("COPY loaded (id) FROM STDIN (FORMAT csv, FORCE_NULL (soul))", b"", Whole),
    ("COPY loaded (id) FROM STDIN (DELIMITER 'ab')", b"", Whole),
    ("COPY loaded (id) FROM STDIN (ENCODING 'nonsense')", b"", Whole),
    ("COPY nonesuch FROM STDIN", b"", Whole),
    ("COPY nonesuch.loaded FROM STDIN", b"", Whole),
    // Rows that may not be.
    ("COPY loaded (id) FROM STDIN", b"1\n1\n", Later),
    ("COPY loaded (id) FROM STDIN", b"\\N\n", Later),
    ("COPY loaded (id) FROM STDIN", b"1000000\n", Later),
    ("COPY loaded (body) FROM STDIN", b"a\n", Later),
    ("COPY loaded (id, short) FROM STDIN", b"1\ta\n2\ta\n", Later),
];

/// From these versions on.
const LATER_CASES: &[(u32, Case)] = &[
    (16, ("COPY loaded (id, body, short) FROM STDIN (DEFAULT '@')", b"1\t@\t@\n2\ta\tb\n", Whole)),
    (16, ("COPY loaded (id, body) FROM STDIN (DEFAULT '\\N')", b"", Whole)),
    (17, ("COPY loaded (id) FROM STDIN (ON_ERROR ignore)", b"1\nx\n2\n", Whole)),
    (17, ("COPY loaded (id, mood) FROM STDIN (ON_ERROR ignore, LOG_VERBOSITY verbose)", b"1\tglad\n2\tno\n", Whole)),
];

/// What is heard, for comparison.
fn said(messages: &[Message], errors: Errors) -> Vec<String> {
    let words = |message: &Message| match message.tag {
        b'E' | b'N' => {
            let fields: &[u8] = if errors == Whole { b"SCMPDHWst" } else { b"SCMP" };
            fields.iter().map(|&field| message.field(field)).collect::<Vec<_>>().join("|")
        }
        _ => format!("{} {:?}", message.brief(), message.body),
    };
    messages.iter().filter(|message| message.tag != b'S').map(words).collect()
}

/// What is in the table then; numbers that were drawn may differ.
const ROWS: &str = "SELECT org_id, id, body, mood, tags, amount, positive, short, \"Odd \"\"Name\", twice, \
                    CASE WHEN number > 1000000 THEN number END FROM loaded ORDER BY id";

/// The COPY by Parse, Bind and Execute, with a Sync sent at once behind it, as libraries do.
async fn copy_extended(raw: &mut Raw, sql: &str, data: &[u8]) -> Vec<Message> {
    raw.send(Wire::new().parse("", sql).describe(b'S', "").bind("", "", &[]).execute("", 0).sync()).await;
    let mut heard = Vec::new();
    while let Some(message) = raw.message().await {
        let tag = message.tag;
        heard.push(message);
        match tag {
            b'G' => raw.send(Wire::new().copy_data(data).copy_done().sync()).await,
            b'Z' => break,
            _ => {}
        }
    }
    heard
}

/// The COPY with its data behind it, before any answer.
async fn copy_ahead(raw: &mut Raw, sql: &str, data: &[u8]) -> Vec<Message> {
    let (first, second) = data.split_at(data.len() / 2);
    raw.send(Wire::new().query(sql).copy_data(first).copy_data(second).copy_done()).await;
    raw.until_ready().await
}

async fn pair() -> (crate::support::Proxy, [Raw; 2]) {
    let proxy = staged().pool_size(1).start().await;
    let mut direct = Raw::past_the_proxy(shard(), "acme").await;
    direct.query("SET search_path = plain, public").await;
    let raw = proxy.raw("acme").await;
    (proxy, [raw, direct])
}

async fn cases(raw: &mut Raw) -> Vec<Case> {
    let version = raw.query("SELECT current_setting('server_version_num')::int / 10000").await;
    let version: u32 = version.split(['(', ')']).nth(1).and_then(|text| text.parse().ok()).expect("a version");
    let later = LATER_CASES.iter().filter(|(from, _)| *from <= version).map(|(_, case)| *case);
    // HEADER match is of PostgreSQL 15.
    let known = CASES.iter().copied().filter(|(sql, ..)| version >= 15 || !sql.contains("match"));
    known.chain(later).collect()
}

/// Notes what differs between the proxy and the connection past it.
fn compare<T: PartialEq + std::fmt::Debug>(different: &mut Vec<String>, sql: &str, both: &[T]) {
    if both[0] != both[1] {
        different.push(format!("{sql}\n    staged: {:?}\n    direct: {:?}\n", both[0], both[1]));
    }
}

/// The COPYs give no more away than where a table of that schema is.
fn of_schema(said: Vec<String>) -> Vec<String> {
    said.into_iter().map(|words| words.replace("|plain|loaded", "|public|loaded")).collect()
}

#[tokio::test]
async fn every_copy_is_answered_as_if_policies_were_none_of_its_business() {
    let _turn = turn().await;
    let (_proxy, mut both) = pair().await;
    let mut different = Vec::new();
    for (sql, data, errors) in cases(&mut both[1]).await {
        let (mut heard, mut ahead, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (raw, sql) in both.iter_mut().zip([sql.to_owned(), sql.replace("public.", "plain.")]) {
            let sql = &sql;
            heard.push(of_schema(said(&copy(raw, sql, &[data]).await, errors)));
            rows.push(raw.query(ROWS).await);
            raw.query("DELETE FROM loaded").await;
            ahead.push(of_schema(said(&copy_ahead(raw, sql, data).await, errors)));
            raw.query("DELETE FROM loaded").await;
        }
        compare(&mut different, sql, &heard);
        compare(&mut different, sql, &ahead);
        compare(&mut different, sql, &rows);
    }
    assert!(different.is_empty(), "{}", different.concat());
}

#[tokio::test]
async fn within_a_transaction_a_copy_is_a_part_of_it() {
    let _turn = turn().await;
    let (_proxy, mut both) = pair().await;
    let mut different = Vec::new();
    for (sql, data, errors) in cases(&mut both[1]).await.into_iter().skip(1).step_by(stride().min(3)) {
        let mut heard = Vec::new();
        for (raw, sql) in both.iter_mut().zip([sql.to_owned(), sql.replace("public.", "plain.")]) {
            let sql = &sql;
            let mut all = vec![raw.query("BEGIN; INSERT INTO loaded (id) VALUES (900)").await];
            all.push(raw.query("SAVEPOINT s").await);
            all.extend(of_schema(said(&copy(raw, sql, &[data]).await, errors)));
            all.push(raw.query(ROWS).await);
            all.push(raw.query("ROLLBACK TO s").await);
            all.push(raw.query(ROWS).await);
            all.push(raw.query("COMMIT").await);
            all.push(raw.query("DELETE FROM loaded").await);
            heard.push(all);
        }
        compare(&mut different, sql, &heard);
    }
    assert!(different.is_empty(), "{}", different.concat());
}

#[tokio::test]
async fn by_the_extended_protocol_it_is_the_same() {
    let _turn = turn().await;
    let (_proxy, mut both) = pair().await;
    let mut different = Vec::new();
    for (at, (sql, data, errors)) in cases(&mut both[1]).await.into_iter().enumerate().step_by(stride().min(3)) {
        let mut heard = Vec::new();
        for (raw, sql) in both.iter_mut().zip([sql.to_owned(), sql.replace("public.", "plain.")]) {
            let sql = &sql;
            let mut all = Vec::new();
            if at % 2 == 0 {
                all.push(raw.query("BEGIN").await);
            }
            all.extend(of_schema(said(&copy_extended(raw, sql, data).await, errors)));
            all.push(raw.query("SELECT 1").await);
            all.push(raw.query("COMMIT").await);
            all.push(raw.query(ROWS).await);
            raw.query("DELETE FROM loaded").await;
            heard.push(all);
        }
        compare(&mut different, sql, &heard);
    }
    assert!(different.is_empty(), "{}", different.concat());
}

#[tokio::test]
async fn binary_data_goes_through() {
    let _turn = turn().await;
    let (_proxy, [mut raw, mut direct]) = pair().await;
    let sql = "COPY (SELECT id, 'b' || id, ARRAY[id, NULL], id / 4.0, 'sad'::kinds.mood FROM generate_series(1, 500) id) \
               TO STDOUT (FORMAT binary)";
    direct.send(Wire::new().query(sql)).await;
    let heard = direct.until_ready().await;
    let data =
        heard.iter().filter(|message| message.tag == b'd').map(|message| message.body.clone()).collect::<Vec<_>>();
    let pieces: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let heard = copy(&mut raw, "COPY BINARY loaded (id, body, tags, amount, mood) FROM STDIN", &pieces).await;
    assert_eq!(brief(&heard), "G C(COPY 500) ZI");
    assert_eq!(heard[0].body, [1, 0, 5, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], "binary, of five columns");
    let sum = raw.query("SELECT count(*), sum(id), max(body), sum(amount), min(mood), max(tags) FROM loaded").await;
    assert_eq!(sum, "T D(500,125250,b99,31312.50,sad,{500,NULL}) C(SELECT 1) ZI");
    raw.query("DELETE FROM loaded").await;
}
