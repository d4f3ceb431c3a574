"""pg_dump: a whole dump of an organization's rows, and of the schema, as its user can make them."""

import os
import subprocess

from common import ORG, PASSWORD, equal, finish, group

PROGRAM = os.environ.get("PARTYWALL_PG_DUMP", "pg_dump")


def dump(*options):
    done = subprocess.run([PROGRAM, "--enable-row-security", *options], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise AssertionError(done.stderr.strip())
    assert PASSWORD not in done.stdout
    return done.stdout


@group("introspection")
def _():
    text = dump("--schema-only", "--schema=public")
    for words in ("CREATE TABLE public.pipelines", "CREATE INDEX runs_started", "CREATE POLICY", "FOREIGN KEY (org_id, run_id)"):
        assert words in text, f"{words} is not in {text[:300]}"
    text = dump("--schema-only", "--exclude-schema=partywall*")
    assert "partywall.protect" not in text and "CREATE TABLE public.runs" in text


@group("copy")
def _():
    text = dump("--data-only", "--table=public.pipelines")
    rows = text.split("FROM stdin;\n")[1].split("\\.")[0].splitlines()
    equal({row.split("\t")[0] for row in rows}, {ORG})
    text = dump("--data-only", "--inserts", "--rows-per-insert=50", "--table=public.runs")
    assert "INSERT INTO public.runs VALUES" in text


@group("errors")
def _():
    done = subprocess.run([PROGRAM, "--data-only", "--table=public.pipelines"], capture_output=True, text=True, timeout=120)
    assert done.returncode and "row_security" in done.stderr.lower().replace("row-level security", "row_security"), done.stderr


finish()
