//! Statements that a server accepts, most of them: typed, of tables and functions that are there.

use super::grammar::Grammar;

const TABLES: &str = "canary | ledger | public.canary | public.ledger";

impl Grammar<'_> {
    /// Adds a statement of an honest tenant.
    pub(super) fn honest_statement(&mut self) {
        match self.random.below(30) {
            0..=9 => self.query(),
            10..=14 => self.write(),
            15..=16 => self.with_queries(),
            17 => {
                self.one_of("EXPLAIN | EXPLAIN (COSTS off) | EXPLAIN (ANALYZE off, VERBOSE)");
                if self.random.one_in(2) { self.write() } else { self.query() }
            }
            18 => {
                self.say("COPY");
                self.parens(|it| if it.random.one_in(3) { it.write_returning() } else { it.query() });
                self.one_of("TO STDOUT | TO STDOUT (FORMAT csv)");
            }
            19 => {
                self.one_of("BEGIN ; DECLARE h CURSOR FOR | DECLARE h CURSOR WITH HOLD FOR");
                self.query();
                self.one_of(" | ; FETCH 3 FROM h | ; MOVE 1 IN h ; CLOSE h");
            }
            20 => {
                self.say("PREPARE h AS");
                if self.random.one_in(2) {
                    self.write()
                } else {
                    self.query()
                }
                self.one_of("; EXECUTE h | ; EXPLAIN EXECUTE h | ; EXECUTE h ; DEALLOCATE h");
            }
            21 => self.one_of(
                "SELECT nextval('ticket') | SELECT id FROM canary ORDER BY id LIMIT 2 FOR UPDATE | \
                SELECT setseed(0.5)",
            ),
            22..=24 => self.one_of(
                "SET work_mem = '1MB' | SET LOCAL TimeZone = 'Europe/Paris' | \
                SELECT set_config('my.own', 'x', false) | RESET work_mem | SHOW search_path | RESET ALL | \
                SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY | DISCARD PLANS | \
                SET statement_timeout = 900",
            ),
            25 => self.one_of(
                "CREATE TEMP TABLE h AS SELECT id, body FROM canary | \
                CREATE TEMP TABLE h (id int) ; INSERT INTO pg_temp.h VALUES (1) ; DROP TABLE pg_temp.h | \
                SELECT id INTO TEMP h FROM canary | CREATE TEMP VIEW h AS SELECT 1 AS a",
            ),
            _ => self.transaction(),
        }
    }

    fn table(&mut self) {
        let name = self.pick(TABLES);
        self.name(name);
    }

    fn query(&mut self) {
        self.say("SELECT");
        self.maybe(6, |it| it.say("DISTINCT"));
        let grouped = self.random.one_in(4);
        if grouped {
            self.one_of(
                "org_id, count(*), max(id) | org_id, string_agg(body, ',' ORDER BY id) | org_id, array_agg(id)",
            );
        } else {
            self.list(3, |it| if it.random.one_in(2) { it.number() } else { it.string() });
        }
        self.say("FROM");
        self.table();
        self.say("AS t");
        self.maybe(3, |it| {
            it.say("WHERE");
            it.condition();
        });
        match grouped {
            true => self.say("GROUP BY org_id"),
            false => self.one_of(" |  | ORDER BY 1 | ORDER BY 1 FETCH FIRST 3 ROWS WITH TIES"),
        }
        self.maybe(8, |it| it.say("LIMIT 5"));
    }

    fn number(&mut self) {
        self.deep("id", |it| match it.random.below(9) {
            0..=2 => it.say("id"),
            3 => it.one_of("1 | 7 | 0 | 100"),
            4 => {
                it.say("length (");
                it.string();
                it.say(")");
            }
            5 => {
                it.parens(Self::number);
                it.one_of("+ | - | *");
                it.parens(Self::number);
            }
            6 => it.say("(SELECT count(*) FROM canary)"),
            7 => it.say("row_number() OVER (ORDER BY id)"),
            _ => {
                it.say("CASE WHEN");
                it.condition();
                it.say("THEN 1 ELSE 2 END");
            }
        });
    }

    fn string(&mut self) {
        self.deep("body", |it| match it.random.below(9) {
            0..=2 => it.one_of("body | org_id | t.body"),
            3 => it.text_of("it's ü"),
            4 => {
                it.one_of("upper ( | md5 ( | reverse ( | quote_literal (");
                it.string();
                it.say(")");
            }
            5 => {
                it.parens(Self::string);
                it.say("||");
                it.parens(Self::string);
            }
            6 => it.one_of("current_setting('app.current_org_id') | to_jsonb(t)::text | current_setting('work_mem')"),
            7 => it.say("(SELECT max(body) FROM canary)"),
            _ => {
                it.parens(Self::number);
                it.say("::text");
            }
        });
    }

    fn condition(&mut self) {
        self.one_of(
            "id < 5 | body LIKE '%a%' | EXISTS (SELECT FROM ledger) | id IN (SELECT id FROM canary) | NOT false | \
                id = ANY (ARRAY[1, 2])",
        );
        self.maybe(3, |it| {
            it.one_of("AND | OR");
            it.condition();
        });
    }

    fn write(&mut self) {
        match self.random.below(4) {
            0 | 1 => {
                self.say("INSERT INTO ledger (body) VALUES (");
                self.text_of("written");
                self.say(")");
            }
            2 => self.one_of("UPDATE ledger SET body = body || 'x' WHERE id < 9 | UPDATE canary SET body = body"),
            _ => self.say("DELETE FROM ledger WHERE id > 20"),
        }
        self.maybe(2, |it| it.say("RETURNING *"));
    }

    fn write_returning(&mut self) {
        self.one_of("INSERT INTO ledger (body) VALUES ('c') RETURNING id | DELETE FROM ledger RETURNING body");
    }

    fn with_queries(&mut self) {
        self.say("WITH w AS (");
        if self.random.one_in(2) {
            self.write_returning()
        } else {
            self.query()
        }
        self.say(") SELECT count(*) FROM w");
    }
}
