//! SQL of every kind from a seed: statements of a tenant, honest and not, as lists of tokens; `tricks` writes them down.

use crate::support::Random;

/// Where statements nest deeper than this, they end.
const DEPTH_MAX: usize = 4;

/// A word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// As it stands: keywords, operators, numbers.
    Plain(String),
    /// A name, which may be quoted.
    Name(String),
    /// A string, without its quotes.
    Text(String),
}

/// Tables and views, of the tenant and of the system.
const RELATIONS: &str = "canary | canary | canary | canary | ledger | ledger | ledger | public.canary | public.ledger | ticket | w | \
    scratch | pg_temp.scratch | kept | nowhere | pg_class | pg_catalog.pg_attribute | pg_stats | \
    pg_stat_activity | pg_locks | pg_settings | pg_policies | pg_stat_user_tables | pg_prepared_statements | \
    pg_cursors | information_schema.tables | pg_statistic | pg_roles";
const COLUMNS: &str =
    "org_id | id | id | body | body | name | relname | a | x | setting | oid | ctid | xmin | tableoid";
const TYPES: &str = "int | text | bigint | numeric | bool | bytea | json | jsonb | xml | regclass | regproc | oid | name | \
    interval | timestamptz | int[] | text[] | pg_temp.int4";
const OPERATORS: &str = "+ | - | * | / | % | || | = | <> | < | >= | ~ | !~* | LIKE | IS DISTINCT FROM | AND | OR | ->> | @> | \
    OPERATOR(pg_catalog.=) | ^";
const NUMBERS: &str = "0 | 1 | 2 | -1 | 42 | 1.5 | 1e3 | 0.0001 | 2147483647 | 0x1F | 1_000 | $1";
/// Never a name of another organization: whatever names one in an answer was not said by us.
const TEXTS: &str = " | x | acme | it's | {\"a\": [1, 2]} | <a><b/></a> | {1,2} | (1,2) | canary | app.current_org_id | \
    TimeZone | work_mem | public | SELECT body FROM canary | SELECT 1; SELECT 2 | pg_class | /etc/passwd | -- | \
    /* | \\ | ü€𝄞 | 2020-01-01";
/// Functions that a guard must know, beside all that the server has.
const CALLS: &str = "count | max | string_agg | array_agg | coalesce | length | upper | repeat | generate_series | unnest | \
    row_to_json | json_agg | to_jsonb | current_setting | set_config | pg_catalog.set_config | setseed | \
    random | nextval | currval | lastval | setval | pg_notify | pg_advisory_lock | pg_try_advisory_lock | \
    pg_advisory_unlock_all | pg_cancel_backend | pg_terminate_backend | query_to_xml | table_to_xml | \
    database_to_xml | ts_stat | ts_rewrite | pg_read_file | lo_create | lo_get | dblink | pg_get_viewdef | \
    partywall.whoami | partywall.org";

/// One statement in the making.
pub struct Grammar<'r> {
    pub(super) random: &'r mut Random,
    /// Names of all functions of the server.
    functions: &'r [String],
    tokens: Vec<Token>,
    depth: usize,
}

impl<'r> Grammar<'r> {
    /// A text of one statement, or of a few.
    pub fn text(random: &'r mut Random, functions: &'r [String]) -> Vec<Token> {
        let mut grammar = Self { random, functions, tokens: Vec::new(), depth: 0 };
        let honest = grammar.random.one_in(2);
        loop {
            if honest {
                grammar.honest_statement()
            } else {
                grammar.statement()
            }
            if !grammar.random.one_in(8) {
                return grammar.tokens;
            }
            grammar.say(";");
        }
    }

    /// Puts other values in the places of some of the literals.
    pub fn change_values(tokens: &mut [Token], random: &mut Random) {
        let mut pick = |all: &'static str| all.split(" | ").nth(random.below(all.split(" | ").count()));
        for token in tokens {
            match token {
                Token::Text(text) => *text = pick(TEXTS).unwrap_or_default().to_owned(),
                Token::Plain(word) if word.starts_with(|c: char| c.is_ascii_digit()) => {
                    *word = pick(NUMBERS).unwrap_or_default().to_owned();
                }
                Token::Plain(_) | Token::Name(_) => {}
            }
        }
    }

    /// Adds words that are not names.
    pub(super) fn say(&mut self, words: &str) {
        self.tokens.extend(words.split_whitespace().map(|word| Token::Plain(word.to_owned())));
    }

    pub(super) fn name(&mut self, name: &str) {
        for (at, part) in name.split('.').enumerate() {
            if at > 0 {
                self.say(".");
            }
            self.tokens.push(Token::Name(part.to_owned()));
        }
    }

    pub(super) fn text_of(&mut self, text: &str) {
        self.tokens.push(Token::Text(text.to_owned()));
    }

    fn relation(&mut self) {
        let name = self.pick(RELATIONS);
        self.name(name);
    }

    fn column(&mut self) {
        let name = self.pick(COLUMNS);
        self.name(name);
    }

    pub(super) fn constant(&mut self) {
        if self.random.one_in(2) {
            let number = self.pick(NUMBERS);
            self.say(number);
        } else {
            let text = self.pick(TEXTS);
            self.text_of(text);
        }
    }

    /// One of a list that is written with bars between its members.
    pub(super) fn pick(&mut self, all: &'static str) -> &'static str {
        let place = self.random.below(all.split(" | ").count());
        all.split(" | ").nth(place).unwrap_or_default()
    }

    pub(super) fn one_of(&mut self, all: &'static str) {
        let words = self.pick(all);
        self.say(words);
    }

    pub(super) fn maybe(&mut self, times: usize, add: impl FnOnce(&mut Self)) {
        if self.random.one_in(times) {
            add(self);
        }
    }

    pub(super) fn list(&mut self, most: usize, mut add: impl FnMut(&mut Self)) {
        add(self);
        for _ in 0..self.random.below(most) {
            self.say(",");
            add(self);
        }
    }

    pub(super) fn parens(&mut self, add: impl FnOnce(&mut Self)) {
        self.say("(");
        add(self);
        self.say(")");
    }

    /// Adds with `add`, or a constant where it is deep enough.
    fn deeper(&mut self, add: impl FnOnce(&mut Self)) {
        if self.depth >= DEPTH_MAX {
            return self.constant();
        }
        self.deep("", add);
    }

    /// Adds with `add`, or `end` where it is deep enough.
    pub(super) fn deep(&mut self, end: &str, add: impl FnOnce(&mut Self)) {
        if self.depth >= DEPTH_MAX {
            return self.say(end);
        }
        self.depth += 1;
        add(self);
        self.depth -= 1;
    }

    fn statement(&mut self) {
        match self.random.below(40) {
            0..=14 => self.select(),
            15..=20 => self.change(),
            21..=22 => self.with(),
            23 => self.explain(),
            24 => self.copy(),
            25..=26 => self.prepared(),
            27..=28 => self.cursor(),
            29..=31 => self.transaction(),
            32..=34 => self.setting(),
            35..=36 => self.definition(),
            _ => self.attack(),
        }
    }

    pub(super) fn select(&mut self) {
        if self.depth >= DEPTH_MAX {
            return self.say("SELECT 1");
        }
        self.deeper(|it| {
            it.say("SELECT");
            it.maybe(6, |it| it.one_of("DISTINCT | DISTINCT ON (id) | ALL"));
            it.list(3, |it| {
                it.expression();
                it.maybe(4, |it| {
                    it.say("AS");
                    it.column();
                });
            });
            it.maybe(40, |it| it.one_of("INTO TEMP kept | INTO kept | INTO UNLOGGED kept"));
            if !it.random.one_in(5) {
                it.say("FROM");
                it.list(2, Self::from);
                it.maybe(2, Self::filter);
            }
            it.maybe(8, |it| it.grouping());
            it.maybe(8, |it| {
                it.one_of("UNION | UNION ALL | INTERSECT | EXCEPT ALL");
                it.select();
            });
            it.maybe(4, |it| {
                it.say("ORDER BY");
                it.expression();
                it.one_of(" | DESC | NULLS FIRST | USING <");
            });
            it.one_of(" |  | LIMIT 3 | OFFSET 1");
            it.maybe(12, |it| it.one_of("FOR UPDATE | FOR SHARE SKIP LOCKED | FOR NO KEY UPDATE OF canary NOWAIT"));
        });
    }

    fn grouping(&mut self) {
        self.say("GROUP BY");
        self.one_of("id | org_id | 1 | ROLLUP (org_id, id) | GROUPING SETS ((), (id)) | CUBE (1)");
        self.maybe(2, |it| {
            it.say("HAVING");
            it.expression();
        });
    }

    fn filter(&mut self) {
        self.say("WHERE");
        self.expression();
    }

    fn from(&mut self) {
        match self.random.below(12) {
            0..=5 => self.relation(),
            6 => self.parens(Self::select),
            7 => {
                self.say("LATERAL");
                self.parens(Self::select);
            }
            8 => self.call(),
            9 => {
                self.say("ROWS FROM");
                self.parens(|it| it.list(2, Self::call));
                self.say("WITH ORDINALITY");
            }
            10 => {
                self.relation();
                self.one_of("TABLESAMPLE bernoulli (50) | TABLESAMPLE system (1) REPEATABLE (1)");
            }
            _ => {
                self.say("(VALUES");
                self.parens(|it| it.list(2, Self::expression));
                self.say(")");
            }
        }
        self.maybe(3, |it| it.one_of("AS x | AS x (a, x) | w | AS pg_temp"));
        self.maybe(5, |it| {
            it.one_of("JOIN | LEFT JOIN | FULL OUTER JOIN | RIGHT JOIN");
            it.relation();
            it.one_of("ON true | USING (id) | ON body = body");
        });
    }

    pub(super) fn expression(&mut self) {
        self.deeper(|it| match it.random.below(24) {
            0..=4 => it.constant(),
            5..=8 => it.column(),
            9..=11 => {
                it.expression();
                let operator = it.pick(OPERATORS);
                it.say(operator);
                it.expression();
            }
            12..=14 => it.call(),
            15 => it.parens(Self::select),
            16 => it.cast(),
            17 => {
                it.say("CASE WHEN");
                it.expression();
                it.say("THEN");
                it.expression();
                it.say("ELSE");
                it.expression();
                it.say("END");
            }
            18 => it.test(),
            19 => {
                it.one_of("ARRAY | ROW | coalesce | greatest | nullif");
                let (open, close) =
                    if it.tokens.last() == Some(&Token::Plain("ARRAY".into())) { ("[", "]") } else { ("(", ")") };
                it.say(open);
                it.list(2, Self::expression);
                it.say(close);
            }
            20 => {
                it.parens(Self::expression);
                it.say(".");
                let name = it.pick("x | setseed | pg_cancel_backend | body | *");
                it.say(name);
            }
            21 => it.one_of(
                "CURRENT_USER | SESSION_USER | CURRENT_DATE | LOCALTIMESTAMP(2) | CURRENT_CATALOG | x.* | canary",
            ),
            22 => {
                it.one_of(
                    "xmlelement(name a, | xmlforest( | json_build_object('a', | trim(both from | \
                    extract(epoch from",
                );
                it.expression();
                it.say(")");
            }
            _ => {
                it.one_of("NOT | - | + | ~ | @");
                it.expression();
            }
        });
    }

    fn cast(&mut self) {
        let target = self.pick(TYPES);
        if self.random.one_in(3) {
            self.say("CAST (");
            self.expression();
            self.say(&format!("AS {target} )"));
        } else {
            self.parens(Self::expression);
            self.say(&format!(":: {target}"));
        }
    }

    fn test(&mut self) {
        match self.random.below(4) {
            0 => {
                self.say("EXISTS");
                self.parens(Self::select);
            }
            1 => {
                self.expression();
                self.one_of(
                    "IS NULL | IS NOT TRUE | BETWEEN SYMMETRIC 1 AND 2 | COLLATE \"C\" | AT TIME ZONE 'UTC' | \
                    IS DOCUMENT",
                );
            }
            _ => {
                self.expression();
                self.one_of("IN | NOT IN | = ANY | <> ALL");
                self.parens(Self::select);
            }
        }
    }

    fn call(&mut self) {
        if self.random.one_in(2) || self.functions.is_empty() {
            let name = self.pick(CALLS);
            self.name(name);
        } else {
            let name = self.functions[self.random.below(self.functions.len())].clone();
            self.maybe(4, |it| {
                it.name("pg_catalog");
                it.say(".");
            });
            self.tokens.push(Token::Name(name));
        }
        self.say("(");
        match self.random.below(8) {
            0 => {}
            1 => self.say("*"),
            2 => {
                self.say("VARIADIC ARRAY [");
                self.constant();
                self.say("]");
            }
            _ => self.list(3, Self::expression),
        }
        self.say(")");
        self.maybe(10, |it| {
            it.one_of(
                "OVER () | OVER (PARTITION BY org_id ORDER BY id) | FILTER (WHERE true) | \
                WITHIN GROUP (ORDER BY 1)",
            )
        });
    }

    pub(super) fn change(&mut self) {
        match self.random.below(5) {
            0 | 1 => {
                self.say("INSERT INTO");
                self.relation();
                if self.random.one_in(2) {
                    self.say("(id, body) VALUES");
                    self.list(2, |it| {
                        it.parens(|it| {
                            it.expression();
                            it.say(",");
                            it.expression();
                        })
                    });
                } else {
                    self.one_of("(body) |  | (org_id, id, body) | OVERRIDING SYSTEM VALUE");
                    self.select();
                }
                self.maybe(3, |it| {
                    it.one_of("ON CONFLICT DO NOTHING | ON CONFLICT (org_id, id) DO UPDATE SET body = excluded.body")
                });
            }
            2 => {
                self.say("UPDATE");
                self.relation();
                self.say("SET body =");
                self.expression();
                self.maybe(3, |it| {
                    it.say("FROM");
                    it.from();
                });
                self.maybe(2, Self::filter);
            }
            3 => {
                self.say("DELETE FROM");
                self.relation();
                self.maybe(3, |it| {
                    it.say("USING");
                    it.from();
                });
                self.maybe(2, Self::filter);
            }
            _ => {
                self.say("MERGE INTO ledger AS l USING");
                self.from();
                self.say("ON true WHEN MATCHED THEN");
                self.one_of("DELETE | DO NOTHING | UPDATE SET body = 'm'");
                self.say("WHEN NOT MATCHED THEN INSERT (body) VALUES");
                self.parens(Self::expression);
                return;
            }
        }
        self.maybe(3, |it| {
            it.say("RETURNING");
            it.list(2, Self::expression);
        });
    }

    fn with(&mut self) {
        self.say("WITH");
        self.maybe(4, |it| it.say("RECURSIVE"));
        self.list(2, |it| {
            it.one_of("w | x | canary | pg_settings");
            it.one_of("AS | AS MATERIALIZED | (a) AS");
            it.parens(|it| if it.random.one_in(3) { it.change() } else { it.select() });
        });
        if self.random.one_in(4) { self.change() } else { self.select() }
    }

    fn explain(&mut self) {
        self.one_of(
            "EXPLAIN | EXPLAIN VERBOSE | EXPLAIN (COSTS off, FORMAT json) | EXPLAIN ANALYZE | \
            EXPLAIN (ANALYZE false) | EXPLAIN (ANALYZE 0)",
        );
        match self.random.below(4) {
            0 => self.change(),
            1 => self.say("EXECUTE p ('1')"),
            _ => self.select(),
        }
    }

    fn copy(&mut self) {
        self.say("COPY");
        if self.random.one_in(2) {
            self.parens(|it| if it.random.one_in(4) { it.change() } else { it.select() });
        } else {
            self.relation();
        }
        self.one_of(
            "TO STDOUT | TO STDOUT (FORMAT csv, HEADER) | TO STDOUT BINARY | FROM STDIN | \
            FROM STDIN WHERE true | TO '/tmp/x' | FROM PROGRAM 'id'",
        );
    }
}
