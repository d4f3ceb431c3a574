"""psqlODBC through pyodbc: catalog functions, prepared statements, per-statement savepoints, DECLARE/FETCH."""

import datetime
import decimal
import glob
import os

import pyodbc

from common import (
    DATABASE, HOST, INSERT, ORG, PASSWORD, PORT, ROWS, TIMES, USER, equal, finish, group, soon, together, total, unique,
)

pyodbc.pooling = False
DRIVER = next(iter(glob.glob("/usr/lib/*/odbc/psqlodbcw.so")), "PostgreSQL Unicode")


def connect(autocommit=True, **more):
    words = {
        "Driver": DRIVER, "Server": HOST, "Port": PORT, "Database": DATABASE, "Uid": USER, "Pwd": PASSWORD,
        "sslmode": os.environ["PGSSLMODE"], **more}
    return pyodbc.connect(";".join(f"{key}={value}" for key, value in words.items()), autocommit=autocommit)


def raises(sqlstate, action):
    try:
        action()
    except pyodbc.Error as error:
        equal(error.args[0], sqlstate, str(error))
        return error
    raise AssertionError(f"no error, where {sqlstate} was due")


@group("connect")
def _():
    conn = connect(ConnSettings="SET work_mem='3MB'")
    equal(conn.execute("SHOW work_mem").fetchval(), "3MB")
    equal(conn.getinfo(pyodbc.SQL_DBMS_NAME), "PostgreSQL")
    conn.close()


@group("introspection")
def _():
    cursor = connect().cursor()
    assert "runs" in {row.table_name for row in cursor.tables(schema="public")}
    equal([row.column_name for row in cursor.columns(table="pipelines")][:3], ["org_id", "id", "name"])
    equal([row.column_name for row in cursor.primaryKeys("runs")], ["org_id", "id"])
    equal({row.pktable_name for row in cursor.foreignKeys(foreignTable="quality_results")}, {"datasets", "runs"})
    assert cursor.statistics("runs").fetchall()
    assert cursor.getTypeInfo().fetchall()
    cursor.procedures().fetchall()


@group("types")
def _():
    conn = connect()
    for kind, value in [
        ("int", 7), ("bigint", 2**40), ("numeric(30,3)", decimal.Decimal("12345678901234567890.123")), ("text", "Grüße 世界"),
        ("date", datetime.date(2024, 2, 29)), ("timestamp", datetime.datetime(2024, 2, 29, 12, 34, 56)), ("bool", True),
        ("bytea", bytes(range(256))), ("float8", 1.5), ("text", None),
    ]:
        got = conn.execute(f"SELECT CAST(? AS {kind})", value).fetchval()
        equal(got in (True, "1") if kind == "bool" else got, value, kind)
    conn.close()


@group("transactions")
def _():
    conn, name = connect(autocommit=False), unique("odbc")
    conn.execute(f"{INSERT} (?, ?, 'o', 's')", ORG, name)
    conn.rollback()
    conn.execute(f"{INSERT} (?, ?, 'o', 's')", ORG, name)
    # The driver puts a savepoint before each statement, so that an error undoes that statement alone.
    raises("22012", lambda: conn.execute("SELECT 1 / ?", 0).fetchall())
    equal(conn.execute("SELECT count(*) FROM pipelines WHERE name = ?", name).fetchval(), 1)
    conn.commit()
    equal(conn.execute("DELETE FROM pipelines WHERE name = ?", name).rowcount, 1)
    conn.commit()
    conn.close()


@group("streaming")
def _():
    conn = connect(UseDeclareFetch=1, Fetch=100)
    equal(sum(row[0] for row in conn.execute(f"SELECT g FROM generate_series(1, {ROWS}) g")), total(ROWS))
    cursor = conn.execute(f"SELECT g FROM generate_series(1, {ROWS}) g")
    cursor.fetchone()
    cursor.close()
    conn.autocommit = False
    equal(sum(row[0] for row in conn.execute("SELECT g FROM generate_series(1, ?) g", ROWS)), total(ROWS))
    conn.commit()
    conn.close()


@group("cancel")
def _():
    conn = connect()
    cursor = conn.cursor()
    soon(0.5, cursor.cancel)
    # S1008 or 57014, as the driver's version has it.
    try:
        cursor.execute("SELECT pg_sleep(60)").fetchall()
        raise AssertionError("slept")
    except pyodbc.Error as error:
        assert "cancel" in str(error).lower(), error
    conn.close()


@group("timeouts")
def _():
    conn = connect(ConnSettings="SET statement_timeout=150")
    try:
        conn.execute("SELECT pg_sleep(60)").fetchall()
        raise AssertionError("slept")
    except pyodbc.Error as error:
        assert "timeout" in str(error).lower(), error
    conn.close()


@group("prepared")
def _():
    def work(number):
        conn = connect(autocommit=number % 2 == 0)
        cursor = conn.cursor()
        for at in range(TIMES // 10):
            equal(cursor.execute("SELECT CAST(? AS int) + 1", at).fetchval(), at + 1)
            if at % 10 == 0:
                equal(cursor.execute("SELECT count(*) FROM pipelines WHERE name = ?", str(at)).fetchval(), 0)
                cursor = conn.cursor()
            if number % 2 and at % 7 == 0:
                conn.commit()
        conn.close()

    together(10, work)


@group("copy")
def _():
    conn = connect(autocommit=False)
    conn.execute("CREATE TEMPORARY TABLE loaded (a int, b text)")
    cursor = conn.cursor()
    cursor.executemany("INSERT INTO loaded VALUES (?, ?)", [(at, str(at)) for at in range(300)])
    equal(cursor.execute("SELECT count(*), max(b) FROM loaded").fetchone()[0], 300)
    conn.commit()
    conn.close()


@group("errors")
def _():
    conn = connect()
    raises("42P01", lambda: conn.execute("SELECT * FROM nowhere"))
    raises("42601", lambda: conn.execute("SELEC 1"))
    equal(conn.execute("SELECT 1").fetchval(), 1)
    conn.close()


finish()
