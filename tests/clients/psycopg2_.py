"""psycopg2: client-side parameters, named cursors, COPY, its pool, session set-up and reset()."""

import datetime
import decimal
import io
import uuid

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

from common import CONNECTIONS, INSERT, ORG, ROWS, TIMES, equal, finish, group, raises, soon, together, total, unique

psycopg2.extras.register_uuid()


def connect(autocommit=False, **options):
    connection = psycopg2.connect("", **options)
    connection.autocommit = autocommit
    return connection


def one(connection, query, arguments=None):
    with connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchone()[0]


def run(connection, query, arguments=None):
    with connection.cursor() as cursor:
        cursor.execute(query, arguments)


@group("connect")
def _():
    conn = connect(options="-c timezone=Asia/Tokyo", application_name="psycopg2 test")
    equal(conn.get_parameter_status("TimeZone"), "Asia/Tokyo")
    equal(one(conn, "SHOW application_name"), "psycopg2 test")
    equal(conn.encoding, "UTF8")
    conn.set_client_encoding("UTF8")
    assert conn.server_version >= 130000
    conn.close()


@group("introspection")
def _():
    conn = connect()
    with conn.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        assert {"table_name": "runs"} in [dict(row) for row in cursor]
    psycopg2.extras.register_default_jsonb(conn)
    equal(psycopg2.extras.HstoreAdapter.get_oids(conn), ((), ()))
    conn.close()


@group("types")
def _():
    conn = connect()
    for kind, value in [
        ("int", 7), ("numeric", decimal.Decimal("12345678901234567890.123")), ("text", "Grüße 'quoted' \\ %"),
        ("bool", True), ("date", datetime.date(2024, 2, 29)), ("uuid", uuid.uuid4()), ("int[]", [1, 2, None]),
        ("timestamptz", datetime.datetime(2024, 2, 29, 12, 0, tzinfo=datetime.timezone.utc)), ("text", None),
        ("interval", datetime.timedelta(days=3, seconds=7)), ("float8", 1.5),
    ]:
        equal(one(conn, f"SELECT %s::{kind}", (value,)), value, kind)
    equal(bytes(one(conn, "SELECT %s", (psycopg2.Binary(bytes(range(256))),))), bytes(range(256)))
    equal(one(conn, "SELECT %s::jsonb", (psycopg2.extras.Json({"a": [1, None]}),)), {"a": [1, None]})
    with conn.cursor() as cursor:
        rows = psycopg2.extras.execute_values(
            cursor, "SELECT * FROM (VALUES %s) AS v (a, b)", [(at, str(at)) for at in range(100)], fetch=True)
        equal(len(rows), 100)
    conn.close()


@group("transactions")
def _():
    name = unique("psycopg2")
    conn = connect()
    run(conn, f"{INSERT} (%s, %s, 'o', 's')", (ORG, name))
    conn.rollback()
    with conn:
        equal(one(conn, "SELECT count(*) FROM pipelines WHERE name = %s", (name,)), 0)
        run(conn, "SAVEPOINT one")
        raises("22012", lambda: run(conn, "SELECT 1 / 0"))
        raises("25P02", lambda: run(conn, "SELECT 1"))
        run(conn, "ROLLBACK TO SAVEPOINT one")
        equal(one(conn, "SELECT 1"), 1)
    conn.set_session(isolation_level="REPEATABLE READ", readonly=True, deferrable=True)
    equal(one(conn, "SHOW transaction_isolation"), "repeatable read")
    raises("25006", lambda: run(conn, "DELETE FROM pipelines WHERE name = %s", (name,)))
    conn.rollback()
    conn.set_session(isolation_level="DEFAULT", readonly="DEFAULT", deferrable="DEFAULT")
    conn.autocommit = True
    conn.set_session(readonly=True)
    raises("25006", lambda: run(conn, "DELETE FROM pipelines WHERE name = %s", (name,)))
    conn.reset()
    conn.close()


@group("two-phase")
def _():
    conn = connect()
    conn.tpc_begin(conn.xid(1, unique("gtrid"), "bqual"))
    run(conn, "SELECT 1")
    # Prepared transactions are off in Postgres's own default (55000), and not carried by the proxy (0A000).
    try:
        conn.tpc_prepare()
        raise AssertionError("prepared")
    except psycopg2.Error as error:
        assert error.pgcode in ("0A000", "55000"), error
    conn.close()


@group("streaming")
def _():
    conn = connect()
    with conn.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute(f"SELECT g FROM generate_series(1, {ROWS}) g")
        equal(sum(row[0] for row in cursor), total(ROWS))
    conn.commit()
    with conn.cursor("scrolled", scrollable=True) as cursor:
        cursor.execute("SELECT g FROM generate_series(1, 100) g")
        cursor.scroll(50)
        equal(cursor.fetchone(), (51,))
    conn.close()


@group("hold cursors")
def _():
    conn = connect()
    cursor = conn.cursor("kept", withhold=True)
    cursor.execute("SELECT g FROM generate_series(1, 1000) g")
    conn.commit()
    equal(len(cursor.fetchmany(10)), 10)
    conn.commit()
    equal(len(cursor.fetchall()), 990)
    cursor.close()
    conn.commit()
    conn.close()


@group("copy")
def _():
    conn = connect()
    with conn.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE loaded (a int, b text)")
        cursor.copy_from(io.StringIO("".join(f"{at}\ttext\n" for at in range(ROWS))), "loaded")
        out = io.StringIO()
        cursor.copy_to(out, "loaded")
        equal(len(out.getvalue().splitlines()), ROWS)
        out = io.StringIO()
        cursor.copy_expert("COPY (SELECT name FROM pipelines ORDER BY name) TO STDOUT WITH CSV HEADER", out)
        assert out.getvalue().startswith("name\n")
        conn.commit()
        raises("22P02", lambda: cursor.copy_from(io.StringIO("x\ty\n"), "loaded"))
        conn.rollback()
        equal(one(conn, "SELECT count(*) FROM loaded"), ROWS)
    conn.close()


@group("cancel")
def _():
    conn = connect()
    soon(0.3, conn.cancel)
    raises("57014", lambda: run(conn, "SELECT pg_sleep(60)"))
    conn.rollback()
    equal(one(conn, "SELECT 1"), 1)
    conn.close()


@group("timeouts")
def _():
    conn = connect(options="-c statement_timeout=150")
    raises("57014", lambda: run(conn, "SELECT pg_sleep(60)"))
    conn.rollback()
    run(conn, "SET LOCAL statement_timeout = '10s'")
    run(conn, "SELECT pg_sleep(0.3)")
    conn.close()


@group("settings")
def _():
    conn, other = connect(autocommit=True), connect(autocommit=True)
    run(conn, "SET work_mem = '3MB'; SET TimeZone = 'Europe/Paris'; SET search_path = pg_catalog")
    equal(conn.get_parameter_status("TimeZone"), "Europe/Paris")
    equal((one(conn, "SHOW work_mem"), one(conn, "SHOW search_path")), ("3MB", "pg_catalog"))
    assert one(other, "SHOW search_path") != "pg_catalog"
    conn.reset()
    assert one(conn, "SHOW search_path") != "pg_catalog"
    equal(one(conn, "SELECT current_setting('app.current_org_id')"), ORG)
    conn.close()
    other.close()


@group("prepared")
def _():
    pool = psycopg2.pool.ThreadedConnectionPool(1, max(8, CONNECTIONS), "")

    def work(number):
        conn = pool.getconn()
        conn.autocommit = True
        run(conn, "PREPARE mine (int) AS SELECT $1 + %s", (number,))
        for at in range(TIMES // CONNECTIONS):
            equal(one(conn, "EXECUTE mine (%s)", (at,)), at + number)
        run(conn, "DEALLOCATE mine")
        pool.putconn(conn)

    # A statement of PREPARE pins its session, and a tier allows so many of those at a time.
    together(8, work)
    pool.closeall()


@group("notices")
def _():
    conn = connect(autocommit=True)
    run(conn, "ROLLBACK")
    run(conn, "DROP TABLE IF EXISTS pg_temp.nothing")
    equal(len(conn.notices), 2)
    assert "there is no transaction in progress" in conn.notices[0], conn.notices
    conn.close()


@group("errors")
def _():
    conn = connect()
    name = unique("twice")
    run(conn, f"{INSERT} (%s, %s, 'o', 's')", (ORG, name))
    error = raises("23505", lambda: run(conn, f"{INSERT} (%s, %s, 'o', 's')", (ORG, name)))
    equal(error.diag.constraint_name, "pipelines_org_id_name_key")
    conn.rollback()
    error = raises("42P01", lambda: run(conn, "SELECT * FROM nowhere"))
    equal(error.diag.statement_position, "15")
    conn.close()


@group("temporary tables")
def _():
    conn = connect(autocommit=True)
    run(conn, "CREATE TEMPORARY TABLE mine (a int); INSERT INTO mine VALUES (1), (2)")
    run(conn, "SELECT 1")
    equal(one(conn, "SELECT sum(a) FROM mine"), 3)
    run(conn, "DISCARD ALL")
    raises("42P01", lambda: run(conn, "SELECT * FROM mine"))
    conn.close()


finish()
