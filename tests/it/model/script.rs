//! Random scripts of one session: what a client may do to its own session, in every order.

use std::fmt::Write as _;

use crate::support::{Random, Wire};

/// How a session begins, and what it does then.
pub struct Script {
    /// Start-up parameters beyond user and database; `options` apart.
    pub startup: Vec<(&'static str, &'static str)>,
    /// The start-up parameter `options`, or nothing.
    pub options: &'static str,
    /// The steps.
    pub steps: Vec<Step>,
    /// The client vanishes in the middle of the step with this number.
    pub killed_at: Option<usize>,
}

/// One exchange: what is sent, and up to where the answer is awaited, once or more.
pub struct Step {
    /// For whoever reads of a failure.
    pub said: String,
    /// Each piece is sent when the one before it has been answered.
    pub pieces: Vec<(Wire, Until)>,
}

/// The end of an answer.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// That many ReadyForQuery.
    Ready(usize),
    /// What ends an Execute, well or not.
    Executed,
}

/// What a script may do that keeps a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pins {
    Allowed,
    None,
}

/// Settings that a script changes, with values that are good or bad.
const SETTINGS: [(&str, &[&str]); 17] = [
    ("work_mem", &["'1MB'", "'64kB'", "4096", "'1TB'"]),
    ("TimeZone", &["'UTC'", "'Europe/Berlin'", "'America/Lima'", "'Nowhere/At_All'"]),
    ("DateStyle", &["'ISO, DMY'", "'German'", "SQL, DMY", "'YMD'", "'Nonsense'"]),
    ("IntervalStyle", &["iso_8601", "'postgres'", "sql_standard", "'none'"]),
    ("search_path", &["public", "pg_catalog, public", "public, ''", "\"$user\", public, \"Odd, name\""]),
    ("extra_float_digits", &["0", "3", "-5", "99"]),
    ("application_name", &["'model'", "'it''s \"me\" \\ ; --'", "''"]),
    ("client_min_messages", &["warning", "notice", "error", "'loud'"]),
    ("statement_timeout", &["'10min'", "3000000", "'20min'"]),
    ("lock_timeout", &["'9min'", "600000"]),
    ("default_transaction_isolation", &["serializable", "'repeatable read'", "'read committed'", "'never'"]),
    ("default_transaction_read_only", &["on", "off", "'maybe'"]),
    ("default_transaction_deferrable", &["on", "off"]),
    ("enable_seqscan", &["off", "on", "1"]),
    ("bytea_output", &["escape", "hex"]),
    ("client_encoding", &["'UTF8'", "'utf-8'"]),
    ("my.note", &["'a'", "'it''s'", "''"]),
];

/// Statements to prepare, and parameters for each.
const PREPARED: [(&str, &[&str]); 12] = [
    ("SELECT 1 AS one", &[]),
    ("SELECT $1::int + 1", &["41", "x"]),
    ("SELECT id, body FROM canary WHERE id <= $1::int ORDER BY id", &["3", "0"]),
    ("INSERT INTO own_table (k, note) VALUES ($1::int, 'prepared')", &["7", "8"]),
    ("SELECT set_config('extra_float_digits', $1::text, false)", &["2", "-3", "no"]),
    ("SELECT timestamptz '2020-07-01 12:00Z', 0.1::float8 + 0.2, interval '1 day 2:03', '\\xab'::bytea", &[]),
    ("SELECT 1 / ($1::int)", &["1", "0"]),
    ("SELECT count(*) FROM own_table", &[]),
    ("WITH moved AS (UPDATE own_table SET note = $1::text RETURNING k) SELECT k FROM moved ORDER BY k", &["new"]),
    ("SELECT * FROM t1 ORDER BY 1", &[]),
    ("SELECT set_config('TimeZone', 'Asia/Tokyo', $1::bool)", &["true", "false"]),
    ("DELETE FROM own_table WHERE k = $1::int", &["7"]),
];

/// Statements that PREPARE would not take, which are prepared by protocol, without a name or as [`UTILITY`]: SQL's EXECUTE
/// of one that deallocates itself, or ends its transaction, can end a PostgreSQL 15 server, and the proxy executes none.
const UTILITIES: [&str; 14] = [
    "SET work_mem = '5MB'",
    "SET work_mem = 4096",
    "SHOW TimeZone",
    "DECLARE c CURSOR FOR SELECT 1",
    "RESET work_mem",
    "RESET ALL",
    "DEALLOCATE s1",
    "DEALLOCATE ALL",
    "SET TimeZone TO DEFAULT",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "",
    "SAVEPOINT a",
];

/// The name of statements that are not executed by SQL.
const UTILITY: &str = "S_1";

const NAMES: [&str; 4] = ["s1", "S_2", "_pg3_0", "__asyncpg_stmt_1__"];
const SAVEPOINTS: [&str; 3] = ["a", "b", "sa_savepoint_1"];

const PLAIN: [&str; 21] = [
    "SELECT 1",
    "SELECT count(*) FROM canary",
    "SELECT timestamptz '2020-07-01 12:00Z', interval '1 day 2:03:04', 1.1::float8 / 3, '\\xab01'::bytea",
    "INSERT INTO own_table (k) VALUES (1)",
    "INSERT INTO own_table (k, note) SELECT x, 'many' FROM generate_series(10, 14) x",
    "UPDATE own_table SET note = 'u' WHERE k < 12",
    "DELETE FROM own_table WHERE k > 11",
    "SELECT k, note FROM own_table ORDER BY k, note",
    "SELECT 1/0",
    "SELECT * FROM no_such_table",
    "SELEC 1",
    "",
    ";",
    "-- only a comment",
    "INSERT INTO own_table (k, org_id) VALUES (99, 'initech')",
    "SELECT set_config('application_name', 'x' || 1, false), set_config('work_mem', '7MB', false)",
    "SELECT current_setting('work_mem'), set_config('work_mem', '6MB', true)",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "COPY (SELECT id FROM canary ORDER BY id LIMIT 3) TO STDOUT",
    "EXPLAIN (COSTS OFF) SELECT 1",
];

const BEGINS: [&str; 7] = [
    "BEGIN",
    "BEGIN",
    "START TRANSACTION",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
    "START TRANSACTION READ ONLY",
    "BEGIN READ WRITE",
];

const ENDS: [&str; 8] =
    ["COMMIT", "COMMIT", "ROLLBACK", "ROLLBACK", "END", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"];

const CHARACTERISTICS: [&str; 3] = [
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, ISOLATION LEVEL READ COMMITTED",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
];

const ASYNCPG_RESET: &str = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";

const TEMPORARY: [&str; 12] = [
    "CREATE TEMP TABLE t1 (v int)",
    "CREATE TEMP TABLE IF NOT EXISTS t1 (v int)",
    "CREATE TEMP TABLE t2 (v int) ON COMMIT DROP",
    "CREATE TEMP TABLE t2 ON COMMIT DELETE ROWS AS SELECT 1 AS v",
    "INSERT INTO t1 VALUES (1), (2)",
    "INSERT INTO t2 VALUES (5)",
    "SELECT * FROM t1 ORDER BY 1",
    "SELECT * FROM t2 ORDER BY 1",
    "DROP TABLE pg_temp.t1",
    "DROP TABLE pg_temp.t2",
    "DROP TABLE IF EXISTS pg_temp.t1",
    "DISCARD TEMP",
];

const CURSORS: [&str; 8] = [
    "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM canary ORDER BY id",
    "DECLARE d CURSOR WITH HOLD FOR SELECT 1/(3 - id) FROM canary ORDER BY id",
    "DECLARE e SCROLL CURSOR FOR SELECT id FROM canary ORDER BY id",
    "FETCH 2 FROM c",
    "FETCH 2 FROM d",
    "FETCH 2 FROM e",
    "CLOSE c",
    "CLOSE ALL",
];

impl Script {
    /// A script of so many steps for the session that owns the table `own_…` of that number.
    pub fn new(random: &mut Random, session: usize, steps: usize, pins: Pins) -> Self {
        let mut writer = Writer { random, session, pins };
        let startup = writer.startup();
        let options = writer.random.pick(&["", "", "-c work_mem=2MB", "--search-path=public -c DateStyle=German"]);
        let steps = (0..steps).map(|_| writer.step()).collect();
        let killed_at = random.one_in(50).then(|| random.below(20));
        Self { startup, options, steps, killed_at }
    }
}

struct Writer<'a> {
    random: &'a mut Random,
    session: usize,
    pins: Pins,
}

impl Writer<'_> {
    fn startup(&mut self) -> Vec<(&'static str, &'static str)> {
        let all = [
            ("application_name", "at start"),
            ("TimeZone", "Africa/Cairo"),
            ("DateStyle", "ISO, DMY"),
            ("statement_timeout", "1500000"),
            ("client_encoding", "'utf-8'"),
            ("default_transaction_isolation", "repeatable read"),
        ];
        all.into_iter().filter(|_| self.random.one_in(4)).collect()
    }

    fn step(&mut self) -> Step {
        match self.random.below(20) {
            0..=8 => {
                let sql = self.simple();
                query(&sql)
            }
            9..=11 => {
                let sql = self.several();
                query(&sql)
            }
            12..=17 => self.batch(),
            18 => self.in_parts(),
            _ => self.copy(),
        }
    }

    /// Several statements in one Query.
    fn several(&mut self) -> String {
        if self.random.one_in(5) {
            return ASYNCPG_RESET.to_owned();
        }
        let count = 2 + self.random.below(3);
        // DISCARD ALL among others is refused before any of them has run.
        let mut all: Vec<String> = Vec::new();
        while all.len() < count {
            let sql = self.simple().replace("DISCARD ALL", "RESET ALL");
            // A text that leaves a failed transaction finds no statement of the protocol's behind that: see
            // docs/compatibility.md.
            let leaves = |sql: &String| ENDS.contains(&&**sql) || sql.starts_with("ROLLBACK TO");
            let names = ["EXECUTE", "DEALLOCATE \"", "DEALLOCATE PREPARE", "PREPARE"];
            if !(all.iter().any(leaves) && names.iter().any(|name| sql.contains(name))) {
                all.push(sql);
            }
        }
        all.join("; ")
    }

    fn simple(&mut self) -> String {
        let sql = match self.random.below(24) {
            0..=4 => self.set(),
            5 => self.reset(),
            6..=8 => (self.random.pick(&BEGINS)).to_owned(),
            9..=12 => (self.random.pick(&ENDS)).to_owned(),
            13..=15 => self.savepoint(),
            16 if self.random.one_in(3) => (self.random.pick(&CHARACTERISTICS)).to_owned(),
            17 if self.random.one_in(3) => "DISCARD ALL".to_owned(),
            18..=19 => self.deallocate_or_execute(),
            20..=21 if self.pins == Pins::Allowed => self.pinning(),
            _ => (self.random.pick(&PLAIN)).to_owned(),
        };
        self.own(&sql)
    }

    fn own(&self, sql: &str) -> String {
        own(self.session, sql)
    }

    fn set(&mut self) -> String {
        let (name, values) = self.random.pick(&SETTINGS);
        let value = self.random.pick(values);
        match self.random.below(8) {
            0..=2 => format!("SET {name} = {value}"),
            3 => format!("SET LOCAL {name} TO {value}"),
            4 => format!("SET SESSION {name} TO {value}"),
            5 => format!("SET {}{name} TO DEFAULT", self.random.pick(&["", "LOCAL ", "SESSION "])),
            6 if name == "TimeZone" => "SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE".to_owned(),
            _ => {
                let literal = if value.starts_with('\'') { value.to_owned() } else { format!("'{value}'") };
                format!("SELECT set_config('{name}', {literal}, {})", self.random.one_in(3))
            }
        }
    }

    fn reset(&mut self) -> String {
        match self.random.below(4) {
            0 => "RESET ALL".to_owned(),
            _ => format!("RESET {}", self.random.pick(&SETTINGS).0),
        }
    }

    fn savepoint(&mut self) -> String {
        let name = self.random.pick(&SAVEPOINTS);
        let verb = self.random.pick(&["SAVEPOINT", "SAVEPOINT", "ROLLBACK TO", "ROLLBACK TO SAVEPOINT", "RELEASE"]);
        format!("{verb} {name}")
    }

    fn deallocate_or_execute(&mut self) -> String {
        let name = self.random.pick(&NAMES);
        let argument = self.random.pick(&["", "", "(1)", "('2')"]);
        match self.random.below(8) {
            0..=3 => format!("EXECUTE \"{name}\"{argument}"),
            4 => format!("EXPLAIN (COSTS OFF) EXECUTE \"{name}\"{argument}"),
            5..=6 => {
                let name = self.random.pick(&[name, name, UTILITY]);
                format!("DEALLOCATE {}\"{name}\"", self.random.pick(&["", "PREPARE "]))
            }
            _ => "DEALLOCATE ALL".to_owned(),
        }
    }

    fn pinning(&mut self) -> String {
        match self.random.below(3) {
            0 => {
                // The guard has set_config prepared by protocol only.
                let able: Vec<_> = PREPARED.iter().filter(|(sql, _)| !sql.contains("set_config")).collect();
                let sql = self.random.pick(&able).0;
                let names = if sql.contains("$1") { &NAMES[2..] } else { &NAMES[..2] };
                format!("PREPARE \"{}\" AS {sql}", self.random.pick(names))
            }
            1 => (self.random.pick(&TEMPORARY)).to_owned(),
            _ => (self.random.pick(&CURSORS)).to_owned(),
        }
    }

    /// One to five rounds of extended messages, each with its Sync.
    fn batch(&mut self) -> Step {
        let (mut wire, mut said) = (Wire::new(), String::new());
        let syncs = if self.random.one_in(4) { 2 + self.random.below(3) } else { 1 };
        for _ in 0..syncs {
            for _ in 0..=self.random.below(3) {
                wire = self.message(wire, &mut said);
            }
            wire = wire.sync();
            said.push_str("Sync ");
        }
        let readies = said.matches("Sync").count();
        Step { said, pieces: vec![(wire, Until::Ready(readies))] }
    }

    fn message(&mut self, wire: Wire, said: &mut String) -> Wire {
        // Names tell how many parameters their statements have.
        let many = self.random.below(2);
        let name = if self.random.one_in(6) { "" } else { self.random.pick(&NAMES[2 * many..2 * many + 2]) };
        let portal = self.random.pick(&["", "p"]);
        match self.random.below(8) {
            0..=1 => {
                let sql = self.preparable(many);
                let _ = write!(said, "Parse {name:?} {sql:?}; ");
                wire.parse(name, &sql)
            }
            2 => {
                let (name, sql) = match self.random.below(4) {
                    0 => (self.random.pick(&["", UTILITY]), self.random.pick(&UTILITIES).to_owned()),
                    _ => (name, self.preparable(many)),
                };
                let _ = write!(said, "Parse/Bind/Describe/Execute {name:?} {portal:?} {sql:?}; ");
                let parameters = self.parameters(&sql);
                let wire = wire.parse(name, &sql).bind(portal, name, &parameters);
                wire.describe(b'P', portal).execute(portal, 0)
            }
            3..=4 => {
                // The unnamed one is bound where it was parsed: in a failed transaction it may have to be sent again, and is
                // refused for the transaction before its parameters are counted.
                let known = self.random.pick(&NAMES[2 * many..2 * many + 2]);
                let name = if many == 0 && self.random.one_in(4) { UTILITY } else { known };
                let parameters: &[&str] = if many == 0 { &[] } else { &["2"] };
                let rows = self.random.pick(&[0, 0, 2]);
                let _ = write!(said, "Bind {name:?} {portal:?} {parameters:?}, Execute {rows}; ");
                wire.bind(portal, name, parameters).execute(portal, rows)
            }
            5 => {
                // In a failed transaction a connection that does not have the statement cannot describe it.
                let name = self.random.pick(&[name, UTILITY]);
                let _ = write!(said, "Parse \"\", Describe S {name:?}; ");
                wire.parse("", "SELECT 1").describe(b'S', name)
            }
            6 => {
                let name = self.random.pick(&[name, name, UTILITY]);
                let _ = write!(said, "Close S {name:?}; ");
                wire.close(b'S', name)
            }
            // Never a portal that a failed statement may have left: PostgreSQL 15 can crash on running one in a failed
            // transaction (see docs/threat-model.md).
            _ => {
                let _ = write!(said, "Bind and Execute \"rows\" 2, Sync, Execute \"rows\" 1, Close P; ");
                let wire = wire.parse("", "SELECT generate_series(1, 5)").bind("rows", "", &[]).execute("rows", 2);
                wire.sync().execute("rows", 1).close(b'P', "rows")
            }
        }
    }

    fn preparable(&mut self, parameters: usize) -> String {
        if parameters > 0 {
            let able: Vec<_> = PREPARED.iter().filter(|(sql, _)| sql.contains("$1")).collect();
            return own(self.session, self.random.pick(&able).0);
        }
        if self.random.one_in(3) {
            let sql = self.random.pick(&PLAIN[..11]);
            return self.own(sql);
        }
        let able: Vec<_> = PREPARED.iter().filter(|(sql, _)| !sql.contains("$1")).collect();
        let sql = self.random.pick(&able).0;
        self.own(sql)
    }

    fn parameters(&mut self, sql: &str) -> Vec<&'static str> {
        if !sql.contains("$1") {
            return Vec::new();
        }
        let known = PREPARED.iter().find(|(text, _)| self.own(text) == sql);
        known.map(|(_, values)| vec![self.random.pick(values)]).unwrap_or_default()
    }

    /// A portal fetched in parts, with Flush between them.
    fn in_parts(&mut self) -> Step {
        let sql = "SELECT id FROM canary ORDER BY id LIMIT 7";
        let first = Wire::new().parse("", sql).bind("parts", "", &[]).execute("parts", 3).flush();
        let mut pieces = vec![(first, Until::Executed)];
        for _ in 0..self.random.below(3) {
            pieces.push((Wire::new().execute("parts", 3).flush(), Until::Executed));
        }
        // After an error nothing more is answered up to Sync: the pieces between are sent with it then.
        pieces.push((Wire::new().close(b'P', "parts").sync(), Until::Ready(1)));
        Step { said: format!("in {} parts: {sql}", pieces.len()), pieces }
    }

    fn copy(&mut self) -> Step {
        let (sql, rows) = match self.pins {
            Pins::Allowed => ("COPY t1 FROM STDIN", self.random.pick(&["1\n2\n", "x\n"])),
            Pins::None => ("COPY (SELECT id FROM canary ORDER BY id LIMIT 2) TO STDOUT", ""),
        };
        let mut wire = Wire::new().query(sql);
        let mut said = format!("Query {sql}");
        if !rows.is_empty() {
            let _ = write!(said, " {rows:?}");
            wire = wire.copy_data(rows.as_bytes());
            wire = if self.random.one_in(4) { wire.copy_fail("I fail") } else { wire.copy_done() };
        }
        Step { said, pieces: vec![(wire, Until::Ready(1))] }
    }
}

fn query(sql: &str) -> Step {
    Step { said: format!("Query {sql:?}"), pieces: vec![(Wire::new().query(sql), Until::Ready(1))] }
}

fn own(session: usize, sql: &str) -> String {
    sql.replace("own_table", &format!("own_{session}"))
}
