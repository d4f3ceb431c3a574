"""psql: \\d, variables, FETCH_COUNT, \\gdesc, \\copy, \\watch, Ctrl-C, settings, and what scripts rely on."""

import os
import pty
import select
import signal
import subprocess
import time

from common import (
    BYTES, DATABASE, DIRECT, HOST, INSERT, ORG, PORT, ROWS, TIMES, USER, equal, finish, group, together, unique,
)


PROGRAM = os.environ.get("PARTYWALL_PSQL", "psql")

# Every backslash command of psql 13 to 18 that asks the server; those that a version lacks it calls invalid by itself.
COMMANDS = """d dA dAc dAf dAo dAp db dc dconfig dC dd dD ddp dE dew des det deu df dfa dfn dfp dft dfw dF dFd dFp dFt dg di dl
    dL dm dn do dO dp dP dPi dPt dPn drds drg dRp dRs ds dt dT du dv dx dX dy l lo_list z dtvmsE dit""".split()
PATTERNS = ["", "public.*", "p*", "*.runs", '"Odd Name"', "app.public.pipelines"]

# A statement of PREPARE pins its session, and a tier allows so many of those at a time.
PREPARERS = 8


def psql(*commands, options=(), stop=True, **environment):
    """Runs psql on a script; answers what it printed and what it complained."""
    arguments = [PROGRAM, "-X", "-A", "-t", "-q", *(["-v", "ON_ERROR_STOP=1"] if stop else []), *options]
    done = subprocess.run(
        arguments, input="\n".join(commands), capture_output=True, text=True, timeout=120,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PSQL_EDITOR": "true", **environment})
    if stop and done.returncode:
        raise AssertionError(done.stderr.strip())
    return done.stdout.strip(), done.stderr.strip()


def says(expected, *commands, **more):
    equal(psql(*commands, **more)[0], expected, commands[-1])


@group("connect")
def _():
    url = f"postgres://{USER}@{HOST}:{PORT}/{DATABASE}"
    if not DIRECT:
        verified = f"{url}?sslmode=verify-full&sslrootcert={os.environ['PARTYWALL_CA']}&application_name=tester"
        says("tester", "SHOW application_name;", options=["-d", verified])
        says("1", "SELECT 1;", options=["-d", f"{url}?sslmode=require&channel_binding=disable&gssencmode=prefer"])
        _, complaint = psql("SELECT 1;", stop=False, PGPASSWORD="not a token")
        assert "invalid or expired token" in complaint, complaint
    says("Asia/Tokyo|42", "SELECT current_setting('TimeZone'), current_setting('geqo_seed')::int + 42;", PGTZ="Asia/Tokyo",
         PGOPTIONS="-c geqo_seed=0 -c statement_timeout=1min")
    says("ISO, DMY|UTF8", "SELECT current_setting('DateStyle'), current_setting('client_encoding');",
         PGDATESTYLE="ISO, DMY", PGCLIENTENCODING="UTF8")


@group("introspection")
def _():
    listed, _ = psql("\\dt", "\\d pipelines", "\\d+ runs", "\\di", "\\dn", "\\df partywall.*", "\\dT", "\\du", "\\l", "\\dp",
                     "\\dx", "\\dv", "\\ds", "\\dconfig work_mem", "\\conninfo", "\\encoding", "\\sf partywall.org")
    for word in ("quality_results", "pipelines_org_id_name_key", "runs_started", "partywall_read", "work_mem"):
        assert word in listed, f"{word} is not listed: {listed[:300]}"
    says("n|integer\nt|text", "SELECT 1 AS n, 'x'::text AS t \\gdesc")


@group("every command")
def _():
    # Some of the answers are long: where time is short, the plain commands are enough.
    marks, patterns = ((("",), [""]) if os.environ.get("PARTYWALL_SMALL") else (("", "+", "S", "S+"), PATTERNS))
    lines = [f"\\{name}{mark} {pattern}" for name in COMMANDS for mark in marks for pattern in patterns]
    lines += ["\\sf+ partywall.org", "\\ef partywall.org 999", "\\sv pg_catalog.pg_tables", "\\dfS+ lower text", "\\doS+ = integer",
              "\\d pg_catalog.pg_class", "\\d+ pg_catalog.pg_stats", "\\d runs_started", "\\d+ information_schema.columns",
              "\\d pg_toast.*", "\\dconfig *", "\\dAc brin integer", "\\dAo+ btree", "\\dAp btree integer_ops", "\\conninfo",
              "\\help SELECT", "SELECT * FROM runs \\gdesc", "SELECT 1 \\crosstabview", "SELECT 'SELECT 1' \\gexec", "\\errverbose"]
    listed, complaint = psql(*lines, stop=False)
    for word in ("runs_started", "partywall"):
        assert word in listed, f"{word} is not listed"
    # Postgres itself keeps connection strings of subscriptions from users, and hardening the sizes of tablespaces.
    kept = ("pg_tablespace_size", "pg_subscription")
    wrong = [line for line in complaint.splitlines() if line.startswith("ERROR") and not line.endswith(kept)]
    assert not wrong, wrong[:3]


def waited(near):
    """Reads until the terminal has been quiet for a moment."""
    while select.select([near], [], [], 0.15)[0]:
        try:
            if not os.read(near, 65536):
                return
        except OSError:
            return


@group("completion")
def _():
    """What Tab asks, in a terminal."""
    near, far = pty.openpty()
    process = subprocess.Popen([PROGRAM, "-X"], stdin=far, stdout=far, stderr=far, env={**os.environ, "TERM": "dumb", "PAGER": "cat"})
    os.close(far)
    texts = ["SELECT * FROM pipel", "SELECT name FROM runs WHERE sta", "\\d run", "\\dt publ", "\\df partywall.o", "UPDATE ",
             "INSERT INTO datasets (", "SELECT pg_si", "SET work", "SET timezone TO ", "SHOW search", "DROP TABLE ", "GRANT SELECT ON ",
             "ALTER TABLE runs DROP CONSTRAINT ", "CREATE INDEX ON runs (", "TABLE public.", "\\dn ", "\\du ", "\\dT ", "\\dx ",
             "\\dv ", "\\di ", "\\ds ", "\\sf ", "COPY ", "LOCK TABLE ", "DEALLOCATE ", "EXECUTE ", "ANALYZE ", "COMMENT ON TABLE ",
             "EXPLAIN SELECT * FROM ", "DELETE FROM ", "SELECT a::", "REFRESH MATERIALIZED VIEW ", "\\c ", "LISTEN ", "FETCH 1 FROM "]
    for text in texts:
        # Ctrl-A, Ctrl-K: the line is given up. (Ctrl-C ends a psql that was built without readline.)
        os.write(near, f"{text}\t\t\x01\x0b".encode())
        waited(near)
    os.write(near, b"\x01\x0b\n\\q\n")
    waited(near)
    equal(process.wait(30), 0)
    os.close(near)


@group("types")
def _():
    says("a'b|Grüße", "\\set word 'a\\'b'", "\\set more Grüße", "SELECT :'word', :'more';")
    says("3", "PREPARE adds (int, int) AS SELECT $1 + $2;", "EXECUTE adds (1, 2);")
    says("\\x00ff|{1,NULL}|[1,5)|{\"a\": 1}",
         "SELECT '\\x00ff'::bytea, ARRAY[1, NULL], int4range(1, 5), '{\"a\":1}'::jsonb;")
    says("4\n5", "SELECT 4 \\; SELECT 5;")
    says("", "", ";", "-- nothing but words")


@group("transactions")
def _():
    name = unique("psql")
    says("1\n0", "BEGIN;", f"{INSERT} ('{ORG}', '{name}', 'o', 's');",
         f"SELECT count(*) FROM pipelines WHERE name = '{name}';", "ROLLBACK;",
         f"SELECT count(*) FROM pipelines WHERE name = '{name}';")
    says("o", "\\set ON_ERROR_ROLLBACK on", "BEGIN;", f"{INSERT} ('{ORG}', '{name}', 'o', 's');", "SELECT 1 / 0;",
         "SAVEPOINT one;", "UPDATE pipelines SET owner = 'p';", "ROLLBACK TO one;", "RELEASE one;", "COMMIT;",
         f"DELETE FROM pipelines WHERE name = '{name}' RETURNING owner;", stop=False)
    says("1\n2", "BEGIN \\; SELECT 1 \\; COMMIT \\; SELECT 2;")
    says("on\nserializable", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;", "SHOW transaction_read_only;",
         "SHOW transaction_isolation;", "COMMIT AND CHAIN;", "ROLLBACK;")


@group("streaming")
def _():
    rows, _ = psql("\\set FETCH_COUNT 100", f"SELECT g FROM generate_series(1, {ROWS}) g;")
    equal(len(rows.splitlines()), ROWS)
    says("1\n2\n3", "BEGIN;", "DECLARE c CURSOR FOR SELECT generate_series(1, 10);", "FETCH 2 FROM c;", "FETCH c;", "COMMIT;")
    rows, _ = psql(f"SELECT repeat('x', 1000) FROM generate_series(1, {BYTES // 150});")
    equal(len(rows), BYTES // 150 * 1001 - 1)


@group("hold cursors")
def _():
    says("1\n2\n3", "DECLARE kept CURSOR WITH HOLD FOR SELECT generate_series(1, 3);", "FETCH kept;", "SELECT 2;",
         "MOVE kept;", "FETCH kept;", "CLOSE kept;")


@group("copy")
def _():
    says("2|b\\c\n1001", "CREATE TEMPORARY TABLE loaded (a int, b text);", "\\copy loaded FROM STDIN (FORMAT csv)", "1,x",
         "2,b\\c", "\\.", "COPY (SELECT * FROM loaded WHERE a = 2) TO STDOUT (FORMAT csv, DELIMITER '|');",
         "\\copy (SELECT generate_series(1, 999)) TO '/dev/null'", "INSERT INTO loaded SELECT generate_series(1, 999);",
         "SELECT count(*) FROM loaded;")
    _, complaint = psql("CREATE TEMPORARY TABLE loaded (a int);", "COPY loaded FROM STDIN;", "x", "\\.", "SELECT 1;", stop=False)
    assert "line 1, column a" in complaint, complaint


@group("cancel")
def _():
    process = subprocess.Popen([PROGRAM, "-X", "-A", "-t"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdin.write("SELECT 'go';\nSELECT pg_sleep(60);\nSELECT 'after';\n")
    process.stdin.flush()
    equal(process.stdout.readline(), "go\n")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=30)
    assert "canceling statement due to user request" in complaint, complaint
    assert DIRECT or "after" in output or not output, output


@group("timeouts")
def _():
    _, complaint = psql("SET statement_timeout = 100;", "SELECT pg_sleep(60);", stop=False)
    assert "statement timeout" in complaint, complaint
    _, complaint = psql("SELECT pg_sleep(60);", stop=False, PGOPTIONS="-c statement_timeout=100")
    assert "statement timeout" in complaint, complaint


@group("settings")
def _():
    says("on|4MB\nescape", "SET work_mem = '4MB' \\; SET bytea_output = 'escape' \\; SET jit = on;",
         "SELECT current_setting('jit'), current_setting('work_mem');", "BEGIN;", "SET bytea_output = hex;", "ROLLBACK;",
         "SHOW bytea_output;")
    says("Asia/Tokyo\nEurope/Rome\nAsia/Tokyo", "SHOW TimeZone;", "SET TimeZone = 'Europe/Rome';", "SHOW TimeZone;",
         "RESET TimeZone;", "SHOW TimeZone;", PGTZ="Asia/Tokyo")
    says(f"public\n{ORG}", "SELECT set_config('search_path', 'public', false);", "DISCARD ALL;",
         "SELECT current_setting('app.current_org_id');")


@group("prepared")
def _():
    script = ["PREPARE many (int) AS SELECT count(*) + $1 FROM pipelines WHERE name = 'nothing';"]
    script += [f"EXECUTE many ({at});" for at in range(TIMES // PREPARERS)]
    expected = "\n".join(str(at) for at in range(TIMES // PREPARERS))
    together(PREPARERS, lambda _: says(expected, *script))


@group("deallocate")
def _():
    _, complaint = psql("PREPARE a AS SELECT 1;", "DEALLOCATE a;", "EXECUTE a;", "DEALLOCATE ALL;", stop=False,
                        options=["-v", "VERBOSITY=verbose"])
    assert "26000" in complaint, complaint


@group("notices")
def _():
    _, complaint = psql("ROLLBACK;", "DROP TABLE IF EXISTS pg_temp.nothing;", "SET client_min_messages = error;", "ROLLBACK;",
                        options=["-v", "VERBOSITY=verbose"])
    equal(complaint.count("WARNING:  25P01"), 1)
    equal(complaint.count("NOTICE:  00000"), 1)


@group("errors")
def _():
    _, complaint = psql("SELECT nme FROM pipelines;", "SELECT 1 +;", "SELECT 1 / 0;", stop=False,
                        options=["-v", "VERBOSITY=verbose"])
    for words in ("ERROR:  42703", "LINE 1: SELECT nme FROM pipelines;", "HINT:  Perhaps", "ERROR:  42601", "ERROR:  22012"):
        assert words in complaint, f"{words} is not in {complaint}"


@group("temporary tables")
def _():
    says("10\n1", "CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 10) AS a;", "SELECT count(*) FROM mine;",
         "DROP TABLE pg_temp.mine;", "SELECT 1;")
    says("3", "BEGIN;", "CREATE TEMPORARY TABLE mine (a int) ON COMMIT DROP;", "INSERT INTO mine VALUES (1), (2), (3);",
         "SELECT count(*) FROM mine;", "COMMIT;")


finish()
