//! Tricks of the protocol: messages that nobody sends, lengths that are none, names that are somebody else's, start-up
//! parameters that would carry a context.

use crate::support::Wire;

const OTHER: &str = "SET app.current_org_id = 'globex'";

/// A conversation: what is sent, and how many ReadyForQuery it gets unless the session ends before.
pub type Talk = (&'static str, Wire, usize);

/// Every conversation.
pub fn talks() -> Vec<Talk> {
    [names(), batches(), copies(), texts(), lengths(), strangers(), parameters()].concat()
}

/// Statements and portals of others.
fn names() -> Vec<Talk> {
    let mut all = Vec::new();
    for name in ["partywall_0", "partywall_1", "partywall_2", "partywall_7", "trace_1", "trace_2", "kept", "trick"] {
        all.push(("bind to another's statement", Wire::new().bind("", name, &["1"]).execute("", 0).sync(), 1));
        all.push(("describe another's statement", Wire::new().describe(b'S', name).sync(), 1));
        all.push(("close another's statement", Wire::new().close(b'S', name).sync(), 1));
        all.push(("run another's portal", Wire::new().execute(name, 0).sync(), 1));
        all.push(("describe another's portal", Wire::new().describe(b'P', name).sync(), 1));
        all.push(("fetch another's portal", Wire::new().query(&format!("FETCH ALL FROM \"{name}\"")), 1));
        let own = Wire::new().parse(name, "SELECT body FROM canary").bind(name, name, &[]).execute(name, 1).sync();
        all.push(("a statement under another's name", own.bind("", name, &[]).execute("", 0).sync(), 2));
    }
    all.push(("the unnamed statement of who was before", Wire::new().bind("", "", &["1"]).execute("", 0).sync(), 1));
    all.push(("the unnamed portal of who was before", Wire::new().execute("", 0).sync(), 1));
    let portal = Wire::new().parse("", "SELECT body FROM canary").bind("p", "", &[]).execute("p", 1).sync();
    all.push(("a portal beyond its transaction", portal.execute("p", 0).sync(), 2));
    let close = Wire::new().parse("n", "SELECT body FROM canary").close(b'S', "n").bind("", "n", &[]);
    all.push(("a statement that was closed", close.execute("", 0).sync(), 1));
    let long = "n".repeat(5000);
    all.push(("a name without end", Wire::new().bind(&long, &long, &[]).execute(&long, 0).sync(), 1));
    all.push(("a long statement's name", Wire::new().parse(&long, "SELECT 1").bind("", &long, &[]).sync(), 1));
    all
}

/// Orders of messages.
fn batches() -> Vec<Talk> {
    let read = || Wire::new().parse("", "SELECT body FROM canary").bind("", "", &[]);
    vec![
        ("a Query inside a batch", read().query(OTHER).execute("", 0).sync(), 2),
        ("a refused Parse, then its Bind", Wire::new().parse("x", OTHER).bind("", "x", &[]).execute("", 0).sync(), 1),
        ("a refused Parse, then another batch", Wire::new().parse("x", OTHER).sync().bind("", "x", &[]).sync(), 2),
        ("Parse of another text under one name", read().parse("", OTHER).bind("", "", &[]).execute("", 0).sync(), 1),
        ("Flush for ever", (0..200).fold(Wire::new(), |wire, _| wire.flush()).sync(), 1),
        ("Sync for ever", (0..500).fold(Wire::new(), |wire, _| wire.sync()), 500),
        ("Execute without end", (0..200).fold(read(), |wire, _| wire.execute("", 1)).sync(), 1),
        ("an open batch that is left", read().execute("", 0).flush(), 0),
        ("a transaction in a pipeline", pipeline(&["BEGIN", "SET my.own = 'left'", "SELECT 1/0", "COMMIT"]), 4),
        ("a context in a pipeline", pipeline(&["BEGIN", OTHER, "SELECT body FROM canary", "COMMIT"]), 4),
        ("RESET ALL in a pipeline", pipeline(&["SELECT 1", "RESET ALL", "SELECT body FROM canary"]), 3),
        ("DISCARD ALL in a pipeline", pipeline(&["SELECT 1", "DISCARD ALL", "SELECT body FROM canary"]), 3),
        ("many statements behind one Sync", many(), 1),
        ("SET by protocol, and gone", Wire::new().parse("", "SET my.own = 'left'").bind("", "", &[]).execute("", 0), 0),
        (
            "a cursor by protocol",
            pipeline(&["BEGIN", "DECLARE c CURSOR FOR SELECT body FROM canary", "FETCH 1 FROM c"]),
            3,
        ),
        (
            "EXECUTE of what was prepared by protocol",
            Wire::new().parse("p", "SELECT body FROM canary").sync().query("EXECUTE p"),
            2,
        ),
        (
            "EXECUTE of a SET that was prepared by protocol",
            Wire::new().parse("p", "SET my.own = 'left'").sync().query("EXECUTE p"),
            2,
        ),
        ("a Terminate in the middle", read().terminate(), 0),
        ("texts behind a Terminate", Wire::new().terminate().query(OTHER), 0),
    ]
}

fn pipeline(texts: &[&str]) -> Wire {
    texts.iter().fold(Wire::new(), |wire, text| wire.parse("", text).bind("", "", &[]).execute("", 0).sync())
}

fn many() -> Wire {
    let one = |wire: Wire, nth: u32| {
        let name = format!("m{nth}");
        wire.parse(&name, "SELECT max(body) FROM canary").bind(&name, &name, &[]).execute(&name, 0)
    };
    (0..100).fold(Wire::new(), one).sync()
}

/// Messages inside, instead of and after COPY data.
fn copies() -> Vec<Talk> {
    let hidden = Wire::new().query(OTHER).0;
    let copy_out = || Wire::new().query("COPY canary TO STDOUT");
    vec![
        ("data where no COPY is", Wire::new().copy_data(&hidden).query("SELECT max(body) FROM canary"), 1),
        ("the end of no COPY", Wire::new().copy_done().copy_fail("x").query("SELECT max(body) FROM canary"), 1),
        ("data behind a refused COPY", Wire::new().query("COPY canary FROM '/x'").copy_data(&hidden).copy_done(), 1),
        ("data into COPY TO", copy_out().copy_data(&hidden).copy_done().query("SELECT 1"), 2),
        ("a statement while a COPY gives", copy_out().query("SELECT max(body) FROM canary"), 2),
        (
            "messages as data",
            Wire::new().query("COPY ledger (body) FROM STDIN").copy_data(&hidden).copy_done().query("SELECT 1"),
            2,
        ),
        (
            "a statement instead of data",
            Wire::new().query("COPY ledger (body) FROM STDIN").query("SELECT max(body) FROM canary").copy_done(),
            1,
        ),
        (
            "Sync and Flush as data",
            Wire::new().query("COPY ledger (body) FROM STDIN").sync().flush().copy_fail("x").query("SELECT 1"),
            2,
        ),
        ("gone in the middle of data", Wire::new().query("COPY ledger (body) FROM STDIN").copy_data(b"a"), 0),
        (
            "an endless line",
            Wire::new().query("COPY ledger (body) FROM STDIN").copy_data(&vec![b'x'; 300_000]).copy_done(),
            1,
        ),
    ]
}

/// Texts that are none, or two.
fn texts() -> Vec<Talk> {
    let text = |bytes: &[u8]| Wire::new().message(b'Q', bytes);
    let parse = |bytes: &[u8]| Wire::new().message(b'P', bytes).bind("", "", &[]).execute("", 0).sync();
    vec![
        ("a second text behind the first", text(b"SELECT 1\0SET app.current_org_id = 'globex'\0"), 1),
        ("a text without its end", text(b"SELECT 1"), 1),
        ("no text at all", text(b""), 1),
        ("a text of Shift-JIS", text(b"SELECT '\x83\x5c'; SET app.current_org_id = 'globex' --'\0"), 1),
        ("a text of Big5", text(b"SELECT '\xa5\x5c'; SET app.current_org_id = 'globex' --'\0"), 1),
        ("a text of GBK", text(b"SELECT '\xbf\x27; SET app.current_org_id = ''globex'' --'\0"), 1),
        ("overlong UTF-8", text(b"SELECT \xc0\xa7; SET app.current_org_id = 'globex'\0"), 1),
        ("half a character", text(b"SELECT 'x\xe2\x82\0"), 1),
        ("a surrogate", text(b"SELECT '\xed\xa0\x80'\0"), 1),
        ("beyond Unicode", text(b"SELECT '\xf8\x88\x80\x80\x80'\0"), 1),
        ("a Parse with a second text", parse(b"\0SELECT 1\0SET app.current_org_id = 'globex'\0\0\0"), 1),
        ("a Parse without types", parse(b"\0SELECT 1\0"), 1),
        ("a Parse with more types than it has", parse(b"\0SELECT 1\0\xff\xff"), 1),
        ("a Parse of bytes", parse(b"\0SELECT '\x83\x5c'\0\0\0"), 1),
        ("a Parse without an end", parse(b"\0SELECT 1"), 1),
        ("a name of bytes", Wire::new().message(b'P', b"\xff\xfe\0SELECT 1\0\0\0").sync(), 1),
        ("another's type", Wire::new().message(b'P', b"\0SELECT $1\0\0\x01\xff\xff\xff\xff").sync(), 1),
        ("40 KB of plus", Wire::new().query(&format!("SELECT {}1", "1+".repeat(20_000))), 1),
        ("100,000 brackets", Wire::new().query(&format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000))), 1),
        ("10,000 comments in one another", Wire::new().query(&format!("{}{OTHER}", "/*".repeat(10_000))), 1),
        ("10,000 closed comments", Wire::new().query(&format!("{}{OTHER}", "/*/**/*/".repeat(10_000))), 1),
        ("a long statement", Wire::new().query(&format!("SELECT '{}'; {OTHER}", "x".repeat(2_000_000))), 1),
        ("20,000 statements", Wire::new().query(&format!("{}{OTHER}", "SELECT 1;".repeat(20_000))), 1),
    ]
}

/// Lengths that lie.
fn lengths() -> Vec<Talk> {
    let raw =
        |tag: u8, length: u32, body: &[u8]| Wire::new().bytes(&[&[tag][..], &length.to_be_bytes(), body].concat());
    let mut all = Vec::new();
    for length in [0, 1, 2, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fff8] {
        for tag in *b"QPBDECSHFdcf" {
            all.push(("a length that lies", raw(tag, length, b"SELECT max(body) FROM canary\0"), 0));
        }
    }
    all.push(("a Query shorter than its text", raw(b'Q', 8, b"SELECT 1\0").sync(), 1));
    all.push(("a Bind with more parameters than it has", bind(b"\0\0\0\0\xff\xff"), 1));
    all.push(("a Bind with a parameter longer than itself", bind(b"\0\0\0\0\0\x01\x7f\xff\xff\xff"), 1));
    all.push(("a Bind with a parameter below nothing", bind(b"\0\0\0\0\0\x01\xff\xff\xff\xfe"), 1));
    all.push(("a Bind with 65,535 formats", bind(b"\0\0\xff\xff"), 1));
    all.push(("a Bind without names", bind(b"x"), 1));
    all.push(("an Execute without a count", Wire::new().message(b'E', b"\0").sync(), 1));
    all.push(("an Execute of less than nothing", Wire::new().message(b'E', b"\0\xff\xff\xff\xff").sync(), 1));
    all.push(("a Describe of nothing", Wire::new().message(b'D', b"").sync(), 1));
    all.push(("a Describe of something else", Wire::new().message(b'D', b"Xname\0").sync(), 1));
    all.push(("a Close of something else", Wire::new().message(b'C', b"Xname\0").sync(), 1));
    all.push(("a Sync with a body", Wire::new().message(b'S', b"SELECT 1\0"), 1));
    all.push(("a Flush with a body", Wire::new().message(b'H', b"SELECT 1\0").sync(), 1));
    all.push(("a Terminate with a body", Wire::new().message(b'X', b"SELECT 1\0"), 0));
    all.push(("half a message", raw(b'Q', 100, b"SELECT"), 0));
    all.push(("half a header", Wire::new().bytes(b"Q\0\0"), 0));
    all
}

fn bind(body: &[u8]) -> Wire {
    Wire::new().parse("", "SELECT $1::text, body FROM canary").message(b'B', body).execute("", 0).sync()
}

/// Messages that a client does not send, or not here.
fn strangers() -> Vec<Talk> {
    let mut all = Vec::new();
    let letters = (b'A'..=b'Z').chain(b'a'..=b'z').filter(|tag| !b"QPBDECSHXdcf".contains(tag));
    for tag in letters.chain([0, 1, 0x7f, 0x80, 0xff]) {
        all.push((
            "a message of no kind",
            Wire::new().message(tag, b"\0\0\0\0").query("SELECT max(body) FROM canary"),
            1,
        ));
    }
    for number in [196_608_u32, 196_610, 80_877_103, 80_877_104, 80_877_102] {
        let body = [&number.to_be_bytes()[..], b"user\0globex\0\0"].concat();
        let bytes = [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat();
        all.push(("a second start", Wire::new().bytes(&bytes), 0));
    }
    for function in [2078_u32, 1, 2171, 2096, 3295] {
        let body = [&function.to_be_bytes()[..], b"\0\0\0\x01\0\0\0\x01x\0\0"].concat();
        all.push(("a function by protocol", Wire::new().message(b'F', &body), 1));
    }
    all.push(("a second password", Wire::new().password("x").query("SELECT max(body) FROM canary"), 1));
    all
}

/// Parameters that carry what a text may not.
fn parameters() -> Vec<Talk> {
    let call = |sql: &str, parameters: &[&str]| {
        Wire::new().parse("", sql).bind("", "", parameters).describe(b'P', "").execute("", 0).sync()
    };
    vec![
        ("a setting's name", call("SELECT set_config($1, $2, false)", &["app.current_org_id", "globex"]), 1),
        ("a setting's value", call("SELECT set_config('statement_timeout', $1, false)", &["0"]), 1),
        ("row security", call("SELECT set_config('row_security', $1, false)", &["off"]), 1),
        ("strings", call("SELECT set_config('standard_conforming_strings', $1, false)", &["off"]), 1),
        ("an encoding", call("SELECT set_config('client_encoding', $1, false)", &["SJIS"]), 1),
        ("a search path", call("SELECT set_config('search_path', $1, false)", &["partywall"]), 1),
        ("memory", call("SELECT set_config('work_mem', $1, true)", &["10GB"]), 1),
        ("how long", call("SELECT set_config('my.own', 'left', $1)", &["false"]), 1),
        ("a text", call("SELECT query_to_xml($1, true, true, '')", &["SELECT 1"]), 1),
        ("a file", call("SELECT pg_read_file($1)", &["/etc/passwd"]), 1),
        ("an organization", call("SELECT * FROM canary WHERE org_id = $1", &["globex"]), 1),
        ("a quote", call("SELECT * FROM canary WHERE body = $1", &["' OR true; --"]), 1),
        ("a row", call("INSERT INTO canary VALUES ($1, 9005, 'x')", &["globex"]), 1),
        ("a relation", call("SELECT $1::regclass", &["canary"]), 1),
        ("a type of nobody's", call("SELECT $1::text::canary", &["(globex,1,x)"]), 1),
    ]
}

/// Start-up parameters; each is a login of its own.
pub const STARTS: &[(&str, &str)] = &[
    ("app.current_org_id", "globex"),
    ("APP.Current_Org_Id", "globex"),
    ("partywall.seal", "x"),
    ("backtrace_functions", "o676c6f626578_"),
    ("options", "-c app.current_org_id=globex"),
    ("options", "--app.current-org-id=globex"),
    ("options", "-capp.current_org_id=globex"),
    ("options", r"-c app.current\_org\_id=globex"),
    ("options", "-c backtrace_functions=o676c6f626578_"),
    ("options", "-c search_path=partywall"),
    ("options", "-c search_path=public,\"partywall\""),
    ("options", "-c role=partywall_owner"),
    ("options", "-c session_authorization=postgres"),
    ("options", "-c row_security=off"),
    ("options", "-c standard_conforming_strings=off"),
    ("options", "-c backslash_quote=on"),
    ("options", "-c client_encoding=SJIS"),
    ("options", "-c statement_timeout=0"),
    ("options", "-c statement_timeout=1"),
    ("options", "-c work_mem=10GB"),
    ("options", "-c session_replication_role=replica"),
    ("options", "-c local_preload_libraries=x"),
    ("options", "-c seed=0.5"),
    ("options", "-c transaction_read_only=on"),
    ("options", "-c default_transaction_read_only=on"),
    ("options", "-c transaction_isolation=serializable"),
    ("options", "-c my.own=left"),
    ("options", "-c client_min_messages=debug5"),
    ("options", "-E -O -P -W 10 -f s"),
    ("options", "-S 1000000 -t pl"),
    ("search_path", "partywall"),
    ("search_path", "pg_catalog, public"),
    ("role", "postgres"),
    ("is_superuser", "on"),
    ("replication", "database"),
    ("replication", "true"),
    ("_pq_.partywall", "globex"),
    ("client_encoding", "SJIS"),
    ("user", "globex"),
    ("database", "template1"),
    ("database", "globex"),
    ("application_name", "x'; SET app.current_org_id = 'globex'; --"),
    ("datestyle", "ISO'; SET app.current_org_id = 'globex'; --"),
    ("timezone", "UTC\"; SET app.current_org_id = 'globex'; --"),
    ("my.own", "left'; SET app.current_org_id = 'globex'; --\\"),
    ("org", "globex"),
    ("tenant", "globex"),
];
