//! Statements that read and write no rows: of sessions, transactions and definitions, and those that no tenant may send.

use super::grammar::Grammar;

const SETTINGS: &str = "work_mem | TimeZone | search_path | statement_timeout | app.current_org_id | app.current_user_id | role | \
    session_authorization | row_security | client_encoding | my.own | seed | standard_conforming_strings | \
    default_transaction_read_only";

impl Grammar<'_> {
    pub(super) fn prepared(&mut self) {
        match self.random.below(6) {
            0..=2 => {
                self.one_of("PREPARE p AS | PREPARE q (int) AS | PREPARE \"canary\" AS");
                if self.random.one_in(3) { self.change() } else { self.select() }
            }
            3 => self.one_of("EXECUTE p | EXECUTE q (1) | EXECUTE \"canary\" | EXECUTE mark"),
            4 => {
                self.say("EXECUTE q");
                self.parens(|it| it.list(2, Self::expression));
            }
            _ => self.one_of("DEALLOCATE p | DEALLOCATE ALL | DISCARD PLANS | DISCARD ALL | DISCARD TEMP"),
        }
    }

    pub(super) fn cursor(&mut self) {
        if self.random.one_in(2) {
            self.one_of(
                "DECLARE c CURSOR | DECLARE c BINARY SCROLL CURSOR WITH HOLD | \
                DECLARE d NO SCROLL CURSOR WITHOUT HOLD | DECLARE e INSENSITIVE CURSOR",
            );
            self.say("FOR");
            self.select();
        } else {
            self.one_of(
                "FETCH 2 FROM c | FETCH ALL d | MOVE BACKWARD 1 IN c | CLOSE c | CLOSE ALL | \
                UPDATE ledger SET body = 'x' WHERE CURRENT OF d",
            );
        }
    }

    pub(super) fn transaction(&mut self) {
        self.one_of(
            "BEGIN | BEGIN READ ONLY | START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE, DEFERRABLE | \
            COMMIT | END | ROLLBACK | ABORT AND CHAIN | COMMIT AND CHAIN | SAVEPOINT s | RELEASE s | \
            ROLLBACK TO s | PREPARE TRANSACTION 'x' | COMMIT PREPARED 'x' | SET TRANSACTION READ ONLY | \
            SET CONSTRAINTS ALL DEFERRED | SET TRANSACTION SNAPSHOT '1'",
        );
    }

    pub(super) fn setting(&mut self) {
        let name = self.pick(SETTINGS);
        match self.random.below(6) {
            0..=2 => {
                self.one_of("SET | SET LOCAL | SET SESSION");
                self.name(name);
                self.one_of("= | TO");
                if self.random.one_in(4) { self.say("DEFAULT") } else { self.constant() }
            }
            3 => {
                self.one_of("RESET | SHOW");
                self.name(name);
            }
            4 => {
                self.say("SELECT set_config (");
                self.text_of(name);
                self.say(",");
                self.expression();
                self.one_of(", true ) | , false ) | , NULL ) | ) OVER ()");
            }
            _ => self.one_of(
                "RESET ALL | SHOW ALL | SET NAMES 'LATIN1' | SET ROLE postgres | SET TIME ZONE LOCAL | \
                SET SESSION AUTHORIZATION DEFAULT | SET XML OPTION DOCUMENT",
            ),
        }
    }

    pub(super) fn definition(&mut self) {
        match self.random.below(4) {
            0 => {
                self.one_of(
                    "CREATE TEMP TABLE scratch AS | CREATE TABLE kept AS | CREATE TEMP VIEW w AS | \
                    CREATE MATERIALIZED VIEW kept AS | CREATE OR REPLACE VIEW canary AS",
                );
                self.select();
            }
            1 => {
                self.say("CREATE TEMP TABLE IF NOT EXISTS scratch (a int DEFAULT");
                self.expression();
                self.one_of(
                    ") | , CHECK (a > 0)) ON COMMIT DROP | , x text GENERATED ALWAYS AS (upper(body)) STORED) | \
                    ) INHERITS (canary)",
                );
            }
            2 => {
                self.one_of(
                    "CREATE INDEX ON scratch | CREATE INDEX ON pg_temp.scratch | \
                    CREATE UNIQUE INDEX CONCURRENTLY ON canary",
                );
                self.parens(|it| it.parens(Self::expression));
            }
            _ => self.one_of(
                "DROP TABLE pg_temp.scratch | DROP TABLE IF EXISTS scratch | DROP TABLE canary | \
                TRUNCATE ledger | ALTER TABLE canary DISABLE ROW LEVEL SECURITY | \
                CREATE TEMP SEQUENCE scratch | ALTER TABLE scratch ADD COLUMN x int | CREATE SCHEMA other | \
                DROP SCHEMA public CASCADE | COMMENT ON TABLE canary IS 'x' | \
                CREATE TYPE pg_temp.int4 AS ENUM ('a') | ALTER TABLE pg_temp.scratch OWNER TO postgres",
            ),
        }
    }

    pub(super) fn attack(&mut self) {
        self.one_of(
            "DO 'BEGIN PERFORM 1; END' | CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1' | \
            GRANT ALL ON canary TO PUBLIC | ALTER ROLE partywall_app SET work_mem = 1 | \
            ALTER ROLE partywall_app PASSWORD 'x' | LOCK TABLE canary | LOCK canary IN ACCESS SHARE MODE | \
            LISTEN c | NOTIFY c, 'x' | UNLISTEN * | VACUUM canary | ANALYZE | REINDEX TABLE canary | \
            CHECKPOINT | LOAD 'x' | CALL f() | CREATE RULE r AS ON SELECT TO canary DO INSTEAD NOTHING | \
            CREATE POLICY p ON canary USING (true) | DROP POLICY tenant ON canary | \
            ALTER SYSTEM SET work_mem = 1 | CREATE EXTENSION dblink | CREATE CAST (text AS int) WITH INOUT | \
            REASSIGN OWNED BY CURRENT_USER TO postgres | SECURITY LABEL ON TABLE canary IS 'x' | \
            IMPORT FOREIGN SCHEMA x FROM SERVER y INTO public | CREATE SERVER s FOREIGN DATA WRAPPER w | \
            TABLE canary | VALUES (1), (2) | CREATE TRIGGER t BEFORE INSERT ON ledger EXECUTE FUNCTION f() | \
            REFRESH MATERIALIZED VIEW kept | CLUSTER",
        );
    }
}
