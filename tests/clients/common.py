"""What the Python clients share: where the proxy is, and groups of checks that print one line of result each.

The environment comes from `run`: PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, as libpq reads them.
"""

import os
import sys
import threading
import time
import traceback
import uuid

HOST = os.environ["PGHOST"]
PORT = int(os.environ["PGPORT"])
DATABASE = os.environ["PGDATABASE"]
USER = os.environ["PGUSER"]
PASSWORD = os.environ["PGPASSWORD"]
ORG = os.environ["PARTYWALL_ORG"]
# How often statements are reused, and from how many connections at once.
TIMES = int(os.environ.get("PARTYWALL_TIMES", "1000"))
CONNECTIONS = int(os.environ.get("PARTYWALL_CONNECTIONS", "20"))
# How many rows are streamed, and how long a long value is.
ROWS = int(os.environ.get("PARTYWALL_ROWS", "5000"))
BYTES = int(os.environ.get("PARTYWALL_BYTES", "3000000"))
# The groups to run; all, where none is named; and those to leave out.
GROUPS = [name for name in os.environ.get("PARTYWALL_GROUPS", "").split(",") if name]
WITHOUT = os.environ.get("PARTYWALL_WITHOUT", "").split(",")
# Whether this run goes past the proxy, to tell what the client itself does.
DIRECT = os.environ.get("PARTYWALL_DIRECT") == "1"

INSERT = "INSERT INTO pipelines (org_id, name, owner, schedule) VALUES"

_failed = 0


def group(name):
    """A decorator: runs the function at once, and prints `ok NAME` or `FAIL NAME: why`."""

    def run(function):
        global _failed
        if GROUPS and name not in GROUPS or name in WITHOUT:
            return
        try:
            function()
        except Exception as error:  # whatever it is, it is this group's failure
            _failed += 1
            if os.environ.get("PARTYWALL_TRACE"):
                traceback.print_exc()
            words = " ".join(f"{type(error).__name__}: {error}".split())
            where = traceback.extract_tb(error.__traceback__)
            line = next((f.lineno for f in reversed(where) if f.filename == sys.argv[0]), 0)
            print(f"FAIL {name}: line {line}: {words[:400]}", flush=True)
        else:
            print(f"ok {name}", flush=True)

    return run


def finish():
    """Ends the script with its exit code."""
    sys.exit(1 if _failed else 0)


def total(rows):
    """The sum of 1 to `rows`."""
    return rows * (rows + 1) // 2


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def equal(got, expected, what=""):
    if got != expected:
        raise AssertionError(f"{what or 'value'} is {got!r}, not {expected!r}")


def raises(sqlstate, action, read=lambda error: getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)):
    """Runs `action`, which has to fail with this SQLSTATE; answers the error."""
    try:
        action()
    except Exception as error:
        if read(error) != sqlstate:
            raise AssertionError(f"SQLSTATE {read(error)}, not {sqlstate}: {error}") from error
        return error
    raise AssertionError(f"no error, where {sqlstate} was due")


def together(count, action):
    """Runs `action(number)` in `count` threads; the first error is raised."""
    errors = []

    def work(number):
        try:
            action(number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def soon(seconds, action):
    """Calls `action` from another thread in a moment."""
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def clock():
    return time.monotonic()
