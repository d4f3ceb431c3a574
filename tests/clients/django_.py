"""Django: ORM, atomic(), .iterator(), inspectdb, its time zones and its connection handling."""

import io
import threading
import uuid

import django
from django.conf import settings

from common import CONNECTIONS, DATABASE, HOST, ORG, PASSWORD, PORT, TIMES, USER, equal, finish, group, together, unique

settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": DATABASE, "USER": USER, "PASSWORD": PASSWORD, "HOST": HOST,
        "PORT": PORT, "OPTIONS": {"application_name": "django test"}, "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True,
    }},
    USE_TZ=True, TIME_ZONE="UTC", INSTALLED_APPS=[], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, models, transaction  # noqa: E402
from django.db.utils import DataError, IntegrityError, InternalError, OperationalError, ProgrammingError  # noqa: E402


class Pipeline(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    org_id = models.TextField(default=ORG)
    name = models.TextField()
    owner = models.TextField()
    schedule = models.TextField(default="daily")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label, managed, db_table = "here", False, "pipelines"


class Run(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    org_id = models.TextField(default=ORG)
    pipeline = models.ForeignKey(Pipeline, models.DO_NOTHING)
    status = models.TextField()
    started_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label, managed, db_table = "here", False, "runs"


@group("connect")
def _():
    with connection.cursor() as cursor:
        cursor.execute("SHOW TimeZone")
        equal(cursor.fetchone()[0], "UTC")
        cursor.execute("SELECT current_setting('application_name')")
        equal(cursor.fetchone()[0], "django test")


@group("introspection")
def _():
    out = io.StringIO()
    call_command("inspectdb", stdout=out)
    for words in ("class Pipelines(models.Model)", "class QualityResults(models.Model)", "db_table = 'runs'", "UUIDField"):
        assert words in out.getvalue(), f"{words} is not in {out.getvalue()[:400]}"
    with connection.cursor() as cursor:
        assert connection.introspection.get_constraints(cursor, "runs")
        assert connection.introspection.get_relations(cursor, "quality_results")


@group("transactions")
def _():
    name = unique("django")
    with transaction.atomic():
        pipeline = Pipeline.objects.create(name=name, owner="o")
        try:
            with transaction.atomic():
                Pipeline.objects.filter(name=name).update(owner="p")
                Pipeline.objects.create(name=name, owner="twice")
        except IntegrityError:
            pass
        pipeline.refresh_from_db()
        equal(pipeline.owner, "o")
    try:
        with transaction.atomic():
            Pipeline.objects.filter(name=name).delete()
            raise KeyError
    except KeyError:
        pass
    Run.objects.bulk_create([Run(pipeline=pipeline, status="running") for _ in range(50)])
    equal(Run.objects.select_related("pipeline").filter(pipeline__name=name).count(), 50)
    with transaction.atomic():
        equal(len(Run.objects.filter(pipeline=pipeline).select_for_update(of=("self",))), 50)
    Run.objects.filter(pipeline=pipeline).update(status="failed")
    equal(Run.objects.filter(pipeline=pipeline, status="failed").delete()[0], 50)
    equal(Pipeline.objects.filter(name=name).delete()[0], 1)


@group("streaming")
def _():
    expected = Run.objects.count()
    equal(sum(1 for _ in Run.objects.all().iterator(chunk_size=100)), expected)
    with transaction.atomic():
        equal(sum(1 for _ in Run.objects.all().iterator(chunk_size=100)), expected)
    early = iter(Run.objects.all().iterator(chunk_size=10))
    next(early)
    del early


@group("settings")
def _():
    with connection.cursor() as cursor:
        cursor.execute("SET work_mem = '3MB'")
        Run.objects.first()
        cursor.execute("SHOW work_mem")
        equal(cursor.fetchone()[0], "3MB")
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SHOW TimeZone")
        equal(cursor.fetchone()[0], "UTC")


@group("errors")
def _():
    for statement, kind in [("SELECT 1 / 0", DataError), ("SELECT * FROM nowhere", ProgrammingError)]:
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
            raise AssertionError(f"{statement} is done")
        except kind:
            pass
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 100")
            cursor.execute("SELECT pg_sleep(60)")
        raise AssertionError("slept")
    except OperationalError:
        pass


@group("prepared")
def _():
    def work(number):
        for _ in range(TIMES // CONNECTIONS):
            equal(Pipeline.objects.filter(name=f"nobody {number}").exists(), False)
        connections.close_all()

    together(CONNECTIONS, work)


@group("types")
def _():
    from django.db.models import Count, F, Max, Value
    from django.db.models.functions import Concat, TruncDay

    days = Run.objects.annotate(day=TruncDay("started_at")).values("day").annotate(n=Count("id"), last=Max("started_at"))
    assert len(days) > 0 and days[0]["day"].tzinfo is not None
    assert Pipeline.objects.annotate(both=Concat(F("name"), Value(" / "), F("owner"), output_field=models.TextField())).first().both.count(" / ") >= 1
    equal(Pipeline.objects.filter(id__in=[uuid.uuid4() for _ in range(500)]).count(), 0)


finish()
