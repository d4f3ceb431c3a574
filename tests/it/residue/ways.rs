//! The ways by which code of the operator's comes to run.

use crate::support::{Message, Raw, Wire};

/// One way: a new one is one line. `{s}` is a schema that has `leave(text)`, which leaves the state.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    /// What the operator has made.
    pub make: &'static str,
    /// What the client sends.
    pub run: &'static str,
    /// The table that a COPY fills with one row, in place of an INSERT.
    pub copied: Option<&'static str>,
}

const fn reading(name: &'static str, make: &'static str, run: &'static str) -> Way {
    Way { name, make, run, copied: None }
}

const fn writing(name: &'static str, make: &'static str, run: &'static str, copied: &'static str) -> Way {
    Way { name, make, run, copied: Some(copied) }
}

const TRIGGER: &str = "CREATE OR REPLACE FUNCTION {s}.fire() RETURNS trigger LANGUAGE plpgsql AS
    $f$ BEGIN PERFORM {s}.leave('x'); IF TG_OP = 'DELETE' THEN RETURN NULL; END IF; RETURN NEW; END $f$;";

/// All but the statement that the client sends itself.
pub const WAYS: &[Way] = &[
    reading("function", "", "SELECT {s}.leave('x')"),
    reading(
        "SQL function",
        "CREATE FUNCTION {s}.by_sql(v text) RETURNS text LANGUAGE sql AS 'SELECT {s}.leave(v)'",
        "SELECT {s}.by_sql('x')",
    ),
    reading(
        "function with a SET clause",
        "CREATE FUNCTION {s}.by_clause(v text) RETURNS text LANGUAGE plpgsql SET work_mem = '3MB' SET my.clause = 'left' AS
            $f$ BEGIN RETURN {s}.leave(v); END $f$",
        "SELECT {s}.by_clause('x')",
    ),
    reading(
        "function with a SET clause that fails",
        "CREATE FUNCTION {s}.by_failure(v text) RETURNS text LANGUAGE plpgsql SET work_mem = '3MB' SET my.clause = 'left' AS
            $f$ BEGIN PERFORM {s}.leave(v); RAISE 'ends badly'; END $f$",
        "SELECT {s}.by_failure('x')",
    ),
    reading(
        "caught failure",
        "CREATE FUNCTION {s}.by_catch(v text) RETURNS text LANGUAGE plpgsql AS
            $f$ BEGIN PERFORM {s}.leave(v); RAISE 'ends badly'; EXCEPTION WHEN raise_exception THEN RETURN v; END $f$",
        "SELECT {s}.by_catch('x')",
    ),
    reading("view", "CREATE VIEW {s}.seen AS SELECT {s}.leave('x') AS v", "SELECT v FROM {s}.seen"),
    reading("domain", "CREATE DOMAIN {s}.checked AS text CHECK ({s}.leave(VALUE) IS NOT NULL)", "SELECT 'x'::{s}.checked"),
    reading(
        "cast",
        "CREATE TYPE {s}.boxed AS (v text);
         CREATE FUNCTION {s}.unbox(b {s}.boxed) RETURNS int LANGUAGE sql AS 'SELECT length({s}.leave(b.v))';
         CREATE CAST ({s}.boxed AS int) WITH FUNCTION {s}.unbox({s}.boxed)",
        "SELECT ROW('x')::{s}.boxed::int",
    ),
    reading(
        "operator",
        "CREATE FUNCTION {s}.both(a text, b text) RETURNS text LANGUAGE sql AS 'SELECT {s}.leave(a || b)';
         CREATE OPERATOR public.|={n}=| (LEFTARG = text, RIGHTARG = text, FUNCTION = {s}.both)",
        "SELECT 'x'::text |={n}=| 'y'::text",
    ),
    reading(
        "aggregate",
        "CREATE FUNCTION {s}.step(a text, b text) RETURNS text LANGUAGE sql AS 'SELECT {s}.leave(b)';
         CREATE AGGREGATE {s}.gathered(text) (SFUNC = {s}.step, STYPE = text)",
        "SELECT {s}.gathered('x')",
    ),
    writing(
        "default",
        "CREATE TABLE {s}.defaults (id int, v text DEFAULT {s}.leave('x'))",
        "INSERT INTO {s}.defaults (id) VALUES (1)",
        "{s}.defaults (id)",
    ),
    writing(
        "trigger on INSERT",
        "CREATE TABLE {s}.inserts (id int); CREATE TRIGGER t AFTER INSERT ON {s}.inserts FOR EACH ROW EXECUTE FUNCTION {s}.fire()",
        "INSERT INTO {s}.inserts VALUES (1)",
        "{s}.inserts (id)",
    ),
    reading(
        "deferred trigger on INSERT",
        "CREATE TABLE {s}.laters (id int); CREATE CONSTRAINT TRIGGER t AFTER INSERT ON {s}.laters DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION {s}.fire()",
        "INSERT INTO {s}.laters VALUES (1)",
    ),
    reading(
        "trigger on UPDATE",
        "CREATE TABLE {s}.updates AS SELECT 1 AS id; CREATE TRIGGER t BEFORE UPDATE ON {s}.updates FOR EACH ROW EXECUTE FUNCTION {s}.fire()",
        "UPDATE {s}.updates SET id = id",
    ),
    reading(
        "trigger on DELETE",
        "CREATE TABLE {s}.deletes AS SELECT 1 AS id; CREATE TRIGGER t BEFORE DELETE ON {s}.deletes FOR EACH ROW EXECUTE FUNCTION {s}.fire()",
        "DELETE FROM {s}.deletes",
    ),
    reading(
        "procedure that commits",
        "CREATE PROCEDURE {s}.run() LANGUAGE plpgsql AS $f$ BEGIN PERFORM {s}.leave('x'); COMMIT; END $f$",
        "CALL {s}.run()",
    ),
];

/// What the operator makes for a state in its schema.
pub fn make(number: usize, leave: &str) -> String {
    let mut sql = format!("CREATE SCHEMA s{number}; {leave};");
    for way in WAYS {
        if way.make.contains("{s}.fire()") && !sql.contains("{s}.fire() RETURNS") {
            sql += TRIGGER;
        }
        sql += way.make;
        sql.push(';');
    }
    sql += "GRANT USAGE ON SCHEMA {s} TO partywall_app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {s} TO partywall_app";
    place(&sql, number)
}

/// The text for one schema.
pub fn place(sql: &str, number: usize) -> String {
    // An operator's name has no digits.
    let mark: String = format!("{number:07b}").chars().map(|bit| if bit == '1' { '>' } else { '<' }).collect();
    sql.replace("{s}", &format!("s{number}")).replace("{n}", &mark)
}

/// How a text reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    Simple,
    Extended,
    Copy,
}

impl Path {
    pub const ALL: [Self; 3] = [Self::Simple, Self::Extended, Self::Copy];

    /// Sends a text; what was heard. Nothing where this cannot carry it.
    pub async fn send(self, raw: &mut Raw, sql: &str, copied: Option<&str>) -> Option<Vec<Message>> {
        let wire = match (self, copied) {
            (Self::Simple, _) => Wire::new().query(sql),
            (Self::Extended, _) if sql.contains(';') => return None,
            (Self::Extended, _) => Wire::new().parse("", sql).bind("", "", &[]).execute("", 0).sync(),
            (Self::Copy, Some(table)) => {
                raw.send(Wire::new().query(&format!("COPY {table} FROM STDIN"))).await;
                return Some(fill(raw).await);
            }
            (Self::Copy, None) if sql.starts_with("SELECT") => Wire::new().query(&format!("COPY ({sql}) TO STDOUT")),
            (Self::Copy, None) => return None,
        };
        raw.send(wire).await;
        Some(raw.until_ready().await)
    }
}

/// One row for a COPY that asks for data.
async fn fill(raw: &mut Raw) -> Vec<Message> {
    let mut heard = Vec::new();
    while let Some(message) = raw.message().await {
        let tag = message.tag;
        heard.push(message);
        match tag {
            b'G' => raw.send(Wire::new().copy_data(b"1\n").copy_done()).await,
            b'Z' => break,
            _ => {}
        }
    }
    heard
}
