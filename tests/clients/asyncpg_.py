"""asyncpg: binary types, its pool with the reset query, cursors, COPY, server_settings, cancellation."""

import asyncio
import datetime
import decimal
import ipaddress
import io
import uuid

import asyncpg

from common import (
    BYTES, CONNECTIONS, DIRECT, INSERT, ORG, PASSWORD, ROWS, TIMES, equal, finish, group as group_, total, unique,
)


def group(name):
    def run(function):
        group_(name)(lambda: asyncio.run(asyncio.wait_for(function(), 120)))

    return run


def connect(**options):
    return asyncpg.connect(password=PASSWORD, **options)


async def raises(kind, action):
    try:
        await action
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


@group("connect")
async def _():
    conn = await connect(server_settings={
        "application_name": "asyncpg test", "statement_timeout": "61s", "jit": "off", "search_path": "public, pg_catalog",
        "timezone": "Asia/Tokyo"})
    equal(conn.get_settings().TimeZone, "Asia/Tokyo")
    equal(await conn.fetchval("SHOW statement_timeout"), "61s")
    equal(await conn.fetchval("SHOW search_path"), "public, pg_catalog")
    equal(await conn.fetchval("SHOW application_name"), "asyncpg test")
    assert conn.get_server_pid() != 0
    await conn.close()


@group("introspection")
async def _():
    conn = await connect()
    await conn.execute("CREATE TEMPORARY TABLE shapes (a int4range[], b money, c public.pipelines)")
    await conn.fetch("SELECT * FROM shapes")
    row = await conn.fetchrow("SELECT p FROM pipelines p LIMIT 1")
    equal(row["p"]["org_id"], ORG)
    equal((await conn.prepare("SELECT $1::int + $2::int8")).get_parameters()[1].name, "int8")
    await conn.close()


@group("types")
async def _():
    conn = await connect()
    for kind, value in [
        ("int2", 7), ("int4", -7), ("int8", 2**40), ("float4", 1.5), ("float8", 1e300), ("text", "Grüße, 世界"),
        ("numeric", decimal.Decimal("12345678901234567890.123")), ("bytea", bytes(range(256))), ("bool", True),
        ("date", datetime.date(2024, 2, 29)), ("time", datetime.time(12, 34, 56, 789)), ("text", None),
        ("timestamp", datetime.datetime(2024, 2, 29, 12, 34, 56, 789)), ("uuid", uuid.uuid4()), ("int4[]", [1, None, 3]),
        ("timestamptz", datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc)), ("jsonb", '{"a": [1, null]}'),
        ("interval", datetime.timedelta(days=3, seconds=7)), ("inet", ipaddress.ip_address("10.1.2.3")),
        ("int4range", asyncpg.Range(1, 5)), ("text[]", [["a", "b"], ["c", None]]), ("point", asyncpg.Point(1, 2)),
    ]:
        got = await conn.fetchval(f"SELECT $1::{kind}", value)
        equal(ipaddress.ip_address(str(got).split("/")[0]) if kind == "inet" else got, value, kind)
    await conn.set_type_codec("jsonb", encoder=str, decoder=lambda text: ("decoded", text), schema="pg_catalog")
    equal(await conn.fetchval("SELECT '1'::jsonb"), ("decoded", "1"))
    big = "x" * BYTES
    equal(await conn.fetchval("SELECT $1::text", big), big)
    await conn.close()


@group("transactions")
async def _():
    conn, name = await connect(), unique("asyncpg")
    try:
        async with conn.transaction():
            await conn.execute(f"{INSERT} ($1, $2, 'o', 's')", ORG, name)
            raise KeyError
    except KeyError:
        pass
    equal(await conn.fetchval("SELECT count(*) FROM pipelines WHERE name = $1", name), 0)
    async with conn.transaction(isolation="repeatable_read"):
        await conn.execute(f"{INSERT} ($1, $2, 'o', 's')", ORG, name)
        try:
            async with conn.transaction():
                await conn.execute("UPDATE pipelines SET owner = 'p' WHERE name = $1", name)
                await conn.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            pass
        equal(await conn.fetchval("SELECT owner FROM pipelines WHERE name = $1", name), "o")
    async with conn.transaction(readonly=True, isolation="serializable", deferrable=True):
        await raises(asyncpg.ReadOnlySQLTransactionError, conn.execute("DELETE FROM pipelines WHERE name = $1", name))
    equal(await conn.execute("DELETE FROM pipelines WHERE name = $1", name), "DELETE 1")
    await conn.close()


@group("streaming")
async def _():
    conn = await connect()
    async with conn.transaction():
        found = 0
        async for row in conn.cursor("SELECT g FROM generate_series(1, $1::int) g", ROWS, prefetch=50):
            found += row[0]
        equal(found, total(ROWS))
        cursor = await conn.cursor("SELECT g FROM generate_series(1, 100) g")
        await cursor.forward(50)
        equal((await cursor.fetchrow())[0], 51)
        equal(len(await cursor.fetch(1000)), 49)
    await conn.close()


@group("copy")
async def _():
    conn = await connect()
    out = io.BytesIO()
    equal(await conn.copy_from_query("SELECT g, $1::text FROM generate_series(1, 1000) g", "x'y", output=out), "COPY 1000")
    equal(len(out.getvalue().splitlines()), 1000)
    await conn.copy_from_table("pipelines", output=out, columns=["name"], format="csv", header=True)
    await conn.execute("CREATE TEMPORARY TABLE loaded (a int, b text, c timestamptz)")
    now = datetime.datetime.now(datetime.timezone.utc)
    equal(await conn.copy_records_to_table("loaded", records=[(at, str(at), now) for at in range(ROWS)]), f"COPY {ROWS}")
    equal(await conn.copy_to_table("loaded", source=io.BytesIO(b"1,x,\n2,y,\n"), format="csv"), "COPY 2")
    await raises(asyncpg.InvalidTextRepresentationError, conn.copy_to_table("loaded", source=io.BytesIO(b"x\ty\t\n")))
    equal(await conn.fetchval("SELECT count(*) FROM loaded"), ROWS + 2)
    await conn.close()


@group("cancel")
async def _():
    conn = await connect()
    await raises(asyncio.TimeoutError, conn.execute("SELECT pg_sleep(60)", timeout=0.3))
    equal(await conn.fetchval("SELECT 1"), 1)
    task = asyncio.ensure_future(conn.fetch("SELECT pg_sleep($1)", 60))
    await asyncio.sleep(0.3)
    task.cancel()
    await raises(asyncio.CancelledError, task)
    equal(await conn.fetchval("SELECT 2"), 2)
    await conn.close()


@group("timeouts")
async def _():
    conn = await connect(server_settings={"statement_timeout": "150"})
    await raises(asyncpg.QueryCanceledError, conn.execute("SELECT pg_sleep(60)"))
    async with conn.transaction():
        await conn.execute("SET LOCAL statement_timeout = '10s'")
        await conn.execute("SELECT pg_sleep(0.3)")
    await conn.close()


@group("settings")
async def _():
    conn = await connect()
    path = await conn.fetchval("SHOW search_path")
    await conn.execute("SET search_path = pg_catalog; SET work_mem = '3MB'")
    equal(await conn.fetchval("SELECT current_setting('work_mem')"), "3MB")
    equal(await conn.fetchval("SELECT set_config('TimeZone', $1, false)", "Asia/Tokyo"), "Asia/Tokyo")
    equal(conn.get_settings().TimeZone, "Asia/Tokyo")
    equal(await conn.fetchval("SELECT current_setting('jit') FROM (SELECT 1) x"), await conn.fetchval("SHOW jit"))
    await conn.reset()
    equal(await conn.fetchval("SHOW search_path"), path)
    equal(await conn.fetchval("SELECT current_setting('app.current_org_id')"), ORG)
    equal(conn.get_settings().TimeZone, (await connect()).get_settings().TimeZone)
    await conn.close()


@group("prepared")
async def _():
    pool = await asyncpg.create_pool(
        password=PASSWORD, min_size=CONNECTIONS, max_size=CONNECTIONS, command_timeout=100, timeout=60)

    async def work(number):
        for at in range(TIMES // CONNECTIONS):
            async with pool.acquire() as conn:
                equal(await conn.fetchval(f"SELECT $1::int + {at % 7}", number), number + at % 7)

    await asyncio.gather(*(work(number) for number in range(CONNECTIONS * 2)))
    async with pool.acquire() as conn:
        await conn.execute("SET search_path = pg_catalog")
        statement = await conn.prepare("SELECT count(*) FROM public.pipelines WHERE name = $1")
        for at in range(TIMES):
            equal(await statement.fetchval(str(at)), 0)
        await conn.executemany("SELECT $1::int", [(at,) for at in range(TIMES)])
    async with pool.acquire() as conn:
        equal(await conn.fetchval("SELECT count(*) > 0 FROM pipelines"), True)
    await pool.close()


@group("deallocate")
async def _():
    conn = await connect()
    statement = await conn.prepare("SELECT 1")
    await conn.execute(f'DEALLOCATE "{statement.get_name()}"')
    await raises(asyncpg.InvalidSQLStatementNameError, statement.fetch())
    await conn.execute("DEALLOCATE ALL")
    await conn.reload_schema_state()
    equal(await conn.fetchval("SELECT 3"), 3)
    await conn.close()


@group("changed plans")
async def _():
    conn = await connect()
    await conn.execute("CREATE TEMPORARY TABLE changing (a int); INSERT INTO changing VALUES (1)")
    equal(len(await conn.fetchrow("SELECT * FROM changing")), 1)
    await conn.execute("DROP TABLE pg_temp.changing; CREATE TEMPORARY TABLE changing AS SELECT 1 AS a, 'x' AS b")
    equal(len(await conn.fetchrow("SELECT * FROM changing")), 2)
    await conn.close()


@group("notices")
async def _():
    conn, heard = await connect(), []
    conn.add_log_listener(lambda _, message: heard.append(message.sqlstate))
    await conn.execute("ROLLBACK")
    await conn.execute("DROP TABLE IF EXISTS pg_temp.nothing")
    await asyncio.sleep(0.05)
    equal(heard, ["25P01", "00000"])
    await conn.close()


@group("errors")
async def _():
    conn, name = await connect(), unique("twice")
    async with conn.transaction():
        await conn.execute(f"{INSERT} ($1, $2, 'o', 's')", ORG, name)
        error = await raises(asyncpg.UniqueViolationError, conn.execute(f"{INSERT} ($1, $2, 'o', 's')", ORG, name))
        equal((error.constraint_name, error.table_name), ("pipelines_org_id_name_key", "pipelines"))
        await raises(asyncpg.InFailedSQLTransactionError, conn.execute("SELECT 1"))
        await conn.execute("ROLLBACK")
        await conn.execute("BEGIN")
    error = await raises(asyncpg.UndefinedColumnError, conn.fetch("SELECT nme FROM pipelines"))
    equal(error.position, "8")
    if not DIRECT:
        await raises(asyncpg.InsufficientPrivilegeError, conn.add_listener("channel", print))
    await conn.close()


@group("temporary tables")
async def _():
    conn = await connect()
    await conn.execute("CREATE TEMPORARY TABLE mine (a int)")
    await conn.executemany("INSERT INTO mine VALUES ($1)", [(at,) for at in range(100)])
    equal(await conn.fetchval("SELECT sum(a) FROM mine"), 4950)
    await conn.execute("DISCARD ALL")
    await raises(asyncpg.UndefinedTableError, conn.fetch("SELECT 1 FROM mine"))
    await conn.close()


finish()
