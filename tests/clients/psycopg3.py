"""psycopg 3: pipeline mode, server-side cursors, COPY, binary parameters, prepared statements, its pool."""

import datetime
import decimal
import json
import uuid

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg.types.range import Range
from psycopg_pool import ConnectionPool

from common import (
    BYTES, CONNECTIONS, INSERT, ORG, ROWS, TIMES, equal, finish, group, raises, soon, together, total, unique,
)


def connect(**options):
    return psycopg.connect("", **options)


@group("connect")
def _():
    with connect(application_name="psycopg3 test", options="-c timezone=Asia/Tokyo -c statement_timeout=61s") as conn:
        equal(conn.info.parameter_status("TimeZone"), "Asia/Tokyo")
        equal(conn.info.encoding, "utf-8")
        equal(conn.info.parameter_status("application_name"), "psycopg3 test")
        equal(conn.execute("SHOW statement_timeout").fetchone()[0], "61s")
        equal(conn.execute("SELECT current_setting('app.current_org_id')").fetchone()[0], ORG)
        equal(conn.execute("SELECT 1").fetchone(), (1,))


@group("introspection")
def _():
    with connect() as conn:
        tables = {row[0] for row in conn.execute(
            "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'public' AND c.relkind = 'r'")}
        assert {"pipelines", "runs", "datasets"} <= tables, tables
        columns = [row[0] for row in conn.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position",
            ("pipelines",))]
        equal(columns[:3], ["org_id", "id", "name"])
        info = psycopg.types.TypeInfo.fetch(conn, "uuid")
        equal(info.name, "uuid")
        cursor = conn.execute("SELECT * FROM runs LIMIT 0")
        equal(cursor.description[0].name, "org_id")


VALUES = [
    ("int4", 7), ("int8", 2**40), ("float8", 1.5), ("numeric", decimal.Decimal("12345678901234567890.123")),
    ("text", "Grüße, 世界 'quoted' \\ back"), ("bytea", bytes(range(256))), ("bool", True),
    ("date", datetime.date(2024, 2, 29)), ("time", datetime.time(12, 34, 56, 789)),
    ("timestamp", datetime.datetime(2024, 2, 29, 12, 34, 56, 789)),
    ("timestamptz", datetime.datetime(2024, 2, 29, 12, 34, 56, tzinfo=datetime.timezone.utc)),
    ("interval", datetime.timedelta(days=3, seconds=7)), ("uuid", uuid.uuid4()), ("int4[]", [1, 2, None]),
    ("text[]", ["a", "b,c", None]), ("jsonb", Jsonb({"a": [1, None, "x"]})), ("int4range", Range(1, 5)),
    ("text", None), ("inet", __import__("ipaddress").ip_address("10.1.2.3")),
]


@group("types")
def _():
    with connect() as conn:
        for binary in (False, True):
            for name, value in VALUES:
                got = conn.execute(f"SELECT %s::{name}", (value,), binary=binary).fetchone()[0]
                expected = value.obj if isinstance(value, Jsonb) else value
                equal(got, expected, f"{name} binary={binary}")
        for name, value in VALUES:
            if not isinstance(value, (str, Jsonb)) and value is not None and not name.endswith("]"):
                got = conn.execute(f"SELECT %b::{name}", (value,), binary=True).fetchone()[0]
                equal(got, value, name)
        big = "x" * BYTES
        equal(conn.execute("SELECT length(%s::text), %s::text", (big, big)).fetchone(), (len(big), big))


@group("transactions")
def _():
    name = unique("psycopg3")
    with connect() as conn:
        conn.execute(f"{INSERT} (%s, %s, 'o', 's')", (ORG, name))
        conn.rollback()
        equal(conn.execute("SELECT count(*) FROM pipelines WHERE name = %s", (name,)).fetchone()[0], 0)
        conn.commit()
        with conn.transaction():
            conn.execute(f"{INSERT} (%s, %s, 'o', 's')", (ORG, name))
            try:
                with conn.transaction():
                    conn.execute("UPDATE pipelines SET owner = 'p' WHERE name = %s", (name,))
                    conn.execute("SELECT 1 / 0")
            except psycopg.errors.DivisionByZero:
                pass
            equal(conn.execute("SELECT owner FROM pipelines WHERE name = %s", (name,)).fetchone()[0], "o")
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = True
        equal(conn.execute("SHOW transaction_isolation").fetchone()[0], "serializable")
        raises("25006", lambda: conn.execute("DELETE FROM pipelines WHERE name = %s", (name,)))
        conn.rollback()
        conn.isolation_level = conn.read_only = None
        raises("42601", lambda: conn.execute("SELEC 1"))
        raises("25P02", lambda: conn.execute("SELECT 1"))
        conn.rollback()
        equal(conn.execute("DELETE FROM pipelines WHERE name = %s RETURNING owner", (name,)).fetchall(), [("o",)])


@group("streaming")
def _():
    with connect() as conn:
        with conn.cursor("named") as cursor:
            cursor.itersize = 100
            cursor.execute(f"SELECT g FROM generate_series(1, {ROWS}) g")
            equal(sum(row[0] for row in cursor), total(ROWS))
        with conn.cursor("scrolled", scrollable=True) as cursor:
            cursor.execute("SELECT g FROM generate_series(1, 100) g")
            cursor.scroll(50)
            equal(cursor.fetchone(), (51,))
            cursor.scroll(0, mode="absolute")
            equal(cursor.fetchmany(2), [(1,), (2,)])
        equal(sum(row[0] for row in conn.cursor().stream(f"SELECT g FROM generate_series(1, {ROWS}) g")), total(ROWS))
        equal(sum(1 for _ in conn.cursor().stream("SELECT g FROM generate_series(1, 500) g", size=50)
                  ) if psycopg.capabilities.has_stream_chunked() else 500, 500)
        with conn.cursor("early") as cursor:
            cursor.execute("SELECT g FROM generate_series(1, 100000) g")
            equal(cursor.fetchone(), (1,))


@group("hold cursors")
def _():
    with connect(autocommit=True) as conn:
        with conn.cursor("kept", withhold=True) as cursor:
            cursor.execute("SELECT g FROM generate_series(1, 1000) g")
            equal(cursor.fetchmany(3), [(1,), (2,), (3,)])
            conn.execute("SELECT 1")
            equal(len(cursor.fetchall()), 997)
        raises("34000", lambda: conn.execute("FETCH 1 FROM kept"))


@group("pipeline")
def _():
    with connect(autocommit=True) as conn:
        with conn.pipeline() as pipeline:
            cursors = [conn.execute("SELECT %s::int", (at,)) for at in range(300)]
            pipeline.sync()
            equal([cursor.fetchone()[0] for cursor in cursors], list(range(300)))
        good, skipped = conn.cursor(), conn.cursor()

        def abort():
            # The driver raises when it has heard of the error: at any of these.
            with conn.pipeline() as pipeline:
                good.execute("SELECT 1")
                conn.execute("SELECT 1 / %s", (0,))
                skipped.execute("SELECT 2")
                pipeline.sync()

        raises("22012", abort)
        equal(good.fetchone(), (1,))
        try:
            skipped.fetchone()
            raise AssertionError("a statement of the aborted pipeline has run")
        except psycopg.Error:
            pass
        with conn.pipeline():
            equal(conn.execute("SELECT 3").fetchone(), (3,))
    with connect() as conn, conn.pipeline():
        with conn.transaction():
            conn.execute("SET LOCAL work_mem = '2MB'")
            equal(conn.execute("SHOW work_mem").fetchone()[0], "2MB")
        name = unique("many")
        with conn.cursor() as cursor:
            cursor.executemany(f"{INSERT} (%s, %s, 'o', 's') RETURNING name",
                               [(ORG, f"{name}{at}") for at in range(50)], returning=True)
        gone = conn.execute("DELETE FROM pipelines WHERE name LIKE %s RETURNING 1", (name + "%",))
        equal(len(gone.fetchall()), 50)


@group("copy")
def _():
    with connect() as conn:
        with conn.cursor().copy("COPY (SELECT g, 'row ' || g FROM generate_series(1, 1000) g) TO STDOUT") as copy:
            rows = list(copy.rows())
            equal((len(rows), rows[0]), (1000, ("1", "row 1")))
        with conn.cursor().copy("COPY (SELECT g FROM generate_series(1, 10) g) TO STDOUT (FORMAT BINARY)") as copy:
            copy.set_types(["int4"])
            equal([row[0] for row in copy.rows()], list(range(1, 11)))
        conn.execute("CREATE TEMPORARY TABLE loaded (a int, b text)")
        with conn.cursor().copy("COPY loaded FROM STDIN") as copy:
            for at in range(1000):
                copy.write_row((at, f"text {at}"))
        with conn.cursor().copy("COPY loaded FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((1000, "binary"))
        equal(conn.execute("SELECT count(*), max(a) FROM loaded").fetchone(), (1001, 1000))
        try:
            with conn.cursor().copy("COPY loaded FROM STDIN") as copy:
                copy.write("not a number\tx\n")
        except psycopg.errors.InvalidTextRepresentation:
            pass
        conn.rollback()
        try:
            with conn.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        conn.rollback()
        equal(conn.execute("SELECT 1").fetchone(), (1,))


@group("cancel")
def _():
    with connect() as conn:
        soon(0.3, conn.cancel)
        raises("57014", lambda: conn.execute("SELECT pg_sleep(60)"))
        conn.rollback()
        soon(0.3, lambda: conn.cancel_safe(timeout=10))
        raises("57014", lambda: conn.execute("SELECT pg_sleep(60)"))
        conn.rollback()
        equal(conn.execute("SELECT 1").fetchone(), (1,))


@group("timeouts")
def _():
    with connect() as conn:
        conn.execute("SET LOCAL statement_timeout = 100")
        raises("57014", lambda: conn.execute("SELECT pg_sleep(60)"))
        conn.rollback()
        conn.autocommit = True
        conn.execute("SET statement_timeout = '150ms'")
        raises("57014", lambda: conn.execute("SELECT pg_sleep(60)"))
        conn.execute("RESET statement_timeout")
        conn.execute("SELECT pg_sleep(0.3)")


@group("settings")
def _():
    with connect(autocommit=True) as conn, connect(autocommit=True) as other:
        show = lambda name: conn.execute(f"SHOW {name}").fetchone()[0]
        first, path = show("work_mem"), show("search_path")
        conn.execute("SET work_mem = '3MB'")
        conn.execute("SELECT set_config('search_path', 'pg_catalog, public', false)")
        conn.execute("SET TIME ZONE 'Europe/Paris'")
        equal(conn.info.parameter_status("TimeZone"), "Europe/Paris")
        equal((show("work_mem"), show("search_path")), ("3MB", "pg_catalog, public"))
        equal(other.execute("SHOW search_path").fetchone()[0], path)
        with conn.transaction(force_rollback=True):
            conn.execute("SET work_mem = '5MB'")
        equal(show("work_mem"), "3MB")
        conn.execute("RESET work_mem")
        equal(show("work_mem"), first)
        conn.execute("RESET ALL")
        equal(show("search_path"), path)
        equal(conn.execute("SELECT current_setting('app.current_org_id')").fetchone()[0], ORG)
        conn.execute("SET client_min_messages = error")
        conn.execute("DISCARD ALL")
        equal(show("client_min_messages"), "notice")
        equal(conn.execute("SELECT current_setting('app.current_org_id')").fetchone()[0], ORG)


@group("prepared")
def _():
    def work(pool):
        def run(number):
            for at in range(TIMES // CONNECTIONS):
                with pool.connection() as conn:
                    query = sql.SQL("SELECT %s::int + {}").format(sql.Literal(at % 7))
                    equal(conn.execute(query, (number,), prepare=True).fetchone()[0], number + at % 7)
        return run

    with ConnectionPool("", min_size=CONNECTIONS, max_size=CONNECTIONS, timeout=60) as pool:
        together(CONNECTIONS, work(pool))
        with pool.connection() as conn:
            for at in range(TIMES):
                equal(conn.execute("SELECT count(*) FROM pipelines WHERE name = %s", (str(at),)).fetchone()[0], 0)


@group("deallocate")
def _():
    with connect(autocommit=True) as conn:
        for _ in range(6):
            conn.execute("SELECT %s::int", (1,))
        equal(len(conn._prepared._names), 1)
        conn.execute("DEALLOCATE _pg3_0")
        raises("26000", lambda: conn.execute("DEALLOCATE _pg3_0"))
        raises("26000", lambda: conn.execute("EXECUTE nobody"))
        conn.execute("PREPARE mine (int) AS SELECT $1 + 1")
        equal(conn.execute("EXECUTE mine (41)").fetchone()[0], 42)
        raises("42P05", lambda: conn.execute("PREPARE mine AS SELECT 1"))
        conn.execute("DEALLOCATE ALL")
        raises("26000", lambda: conn.execute("EXECUTE mine (1)"))


@group("notices")
def _():
    with connect(autocommit=True) as conn:
        heard = []
        conn.add_notice_handler(lambda notice: heard.append((notice.sqlstate, notice.severity_nonlocalized)))
        conn.execute("ROLLBACK")
        equal(heard, [("25P01", "WARNING")])
        conn.execute("DROP TABLE IF EXISTS pg_temp.nothing_of_that_name")
        equal(len(heard), 2)
        conn.execute("SET client_min_messages = error")
        conn.execute("ROLLBACK")
        equal(len(heard), 2)


@group("errors")
def _():
    name = unique("twice")
    with connect() as conn:
        conn.execute(f"{INSERT} (%s, %s, 'o', 's')", (ORG, name))
        error = raises("23505", lambda: conn.execute(f"{INSERT} (%s, %s, 'o', 's')", (ORG, name)))
        equal((error.diag.schema_name, error.diag.table_name), ("public", "pipelines"))
        equal(error.diag.constraint_name, "pipelines_org_id_name_key")
        conn.rollback()
        error = raises("42703", lambda: conn.execute("SELECT nme FROM pipelines"))
        equal(error.diag.statement_position, "8")
        assert "name" in error.diag.message_hint, error.diag.message_hint
        conn.rollback()
        error = raises("23514", lambda: conn.execute("UPDATE pipelines SET status = 'odd'"))
        equal(error.diag.constraint_name, "pipelines_status_check")
        conn.rollback()
        raises("42501", lambda: conn.execute(f"{INSERT} ('somebody else', 'x', 'o', 's')"))


@group("temporary tables")
def _():
    with connect(autocommit=True) as conn, connect(autocommit=True) as other:
        conn.execute("CREATE TEMPORARY TABLE mine (a int)")
        conn.execute("INSERT INTO mine SELECT generate_series(1, 10)")
        raises("42P01", lambda: other.execute("SELECT * FROM mine"))
        equal(conn.execute("SELECT count(*) FROM mine").fetchone()[0], 10)
        conn.execute("DROP TABLE pg_temp.mine")
        raises("42P01", lambda: conn.execute("SELECT * FROM mine"))
        conn.execute("CREATE TEMPORARY TABLE mine AS SELECT 1 AS a")
        conn.execute("DISCARD ALL")
        raises("42P01", lambda: conn.execute("SELECT * FROM mine"))


@group("async")
def _():
    import asyncio

    async def main():
        async with await psycopg.AsyncConnection.connect("") as conn:
            cursor = await conn.execute("SELECT %s::jsonb", (json.dumps({"a": 1}),))
            equal(await cursor.fetchone(), ({"a": 1},))
            task = asyncio.create_task(conn.execute("SELECT pg_sleep(60)"))
            await asyncio.sleep(0.3)
            task.cancel()
            try:
                await task
                raise AssertionError("not cancelled")
            except (asyncio.CancelledError, psycopg.errors.QueryCanceled):
                pass

    asyncio.run(main())


finish()
