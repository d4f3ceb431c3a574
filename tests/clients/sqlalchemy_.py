"""SQLAlchemy 2: reflection, ORM, streaming and its pool, on psycopg and on asyncpg."""

import asyncio
import datetime
import uuid

from sqlalchemy import (
    Column, ForeignKeyConstraint, Integer, MetaData, String, Table, create_engine, func, inspect, select, text, update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from common import (
    CONNECTIONS, DATABASE, HOST, ORG, PASSWORD, PORT, ROWS, TIMES, USER, equal, finish, group, together, total, unique,
)

ADDRESS = f"{USER}:{PASSWORD}@{HOST}:{PORT}/{DATABASE}"
ENGINES = {
    "psycopg": lambda **more: create_engine(f"postgresql+psycopg://{ADDRESS}", **more),
    "psycopg2": lambda **more: create_engine(f"postgresql+psycopg2://{ADDRESS}", **more),
}


class Base(DeclarativeBase):
    pass


class Pipeline(Base):
    __tablename__ = "pipelines"
    org_id: Mapped[str] = mapped_column(primary_key=True, default=ORG)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str]
    owner: Mapped[str]
    schedule: Mapped[str] = mapped_column(default="daily")
    status: Mapped[str] = mapped_column(server_default="active")
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=func.now())
    runs: Mapped[list["Run"]] = relationship(back_populates="pipeline", cascade="all, delete-orphan")


class Run(Base):
    __tablename__ = "runs"
    __table_args__ = (ForeignKeyConstraint(["org_id", "pipeline_id"], ["pipelines.org_id", "pipelines.id"]),)
    org_id: Mapped[str] = mapped_column(primary_key=True, default=ORG)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    pipeline_id: Mapped[uuid.UUID]
    status: Mapped[str]
    rows_read: Mapped[int] = mapped_column(default=0)
    pipeline: Mapped[Pipeline] = relationship(back_populates="runs")


def orm(session):
    name = unique("orm")
    pipeline = Pipeline(name=name, owner="o", runs=[Run(status="running", rows_read=at) for at in range(20)])
    session.add(pipeline)
    session.flush()
    with session.begin_nested() as savepoint:
        pipeline.owner = "changed"
        session.flush()
        savepoint.rollback()
    session.commit()
    query = select(Pipeline).options(selectinload(Pipeline.runs)).where(Pipeline.name == name)
    found = session.scalars(query).one()
    equal((found.owner, len(found.runs), found.org_id), ("o", 20, ORG))
    total = session.execute(
        select(func.sum(Run.rows_read), func.count()).join(Run.pipeline).where(Pipeline.name == name)).one()
    equal(tuple(total), (190, 20))
    try:
        with session.begin_nested():
            session.add(Pipeline(name=name, owner="twice"))
            session.flush()
        raise AssertionError("twice")
    except IntegrityError:
        pass
    session.execute(update(Pipeline).where(Pipeline.name == name).values(owner="later"))
    session.delete(found)
    session.commit()
    equal(session.scalar(select(func.count()).select_from(Pipeline).where(Pipeline.name == name)), 0)


def sync_groups(driver, make):
    engine = make(pool_size=CONNECTIONS, max_overflow=0)

    @group(f"introspection")
    def _():
        inspector = inspect(engine)
        assert {"pipelines", "runs", "datasets", "quality_results"} <= set(inspector.get_table_names())
        equal(inspector.get_pk_constraint("runs")["constrained_columns"], ["org_id", "id"])
        keys = inspector.get_foreign_keys("quality_results")
        equal({key["referred_table"] for key in keys}, {"datasets", "runs"})
        assert "runs_started" in {index["name"] for index in inspector.get_indexes("runs")}
        assert inspector.get_check_constraints("pipelines") and inspector.get_unique_constraints("pipelines")
        metadata = MetaData()
        metadata.reflect(engine)
        equal(len(metadata.tables["pipelines"].columns), 7)
        base = automap_base()
        base.prepare(autoload_with=engine)
        assert "datasets" in base.classes
        inspector.get_view_names(), inspector.get_sequence_names(), inspector.get_enums(), inspector.get_schema_names()

    @group("transactions")
    def _():
        with Session(engine) as session:
            orm(session)
        with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
            equal(conn.scalar(text("SHOW transaction_isolation")), "serializable")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            equal(conn.scalar(text("SELECT 1")), 1)
        with engine.connect() as conn:
            equal(conn.scalar(text("SHOW transaction_isolation")), "read committed")

    @group("streaming")
    def _():
        with engine.connect() as conn:
            rows = conn.execution_options(yield_per=100).execute(text(f"SELECT g FROM generate_series(1, {ROWS}) g"))
            equal(sum(row[0] for row in rows), total(ROWS))

    @group("types")
    def _():
        temporary = Table(
            "kinds", MetaData(), Column("a", Integer), Column("b", ARRAY(String)), Column("c", JSONB), prefixes=["TEMPORARY"])
        with engine.connect() as conn:
            temporary.create(conn)
            rows = [{"a": at, "b": ["x", "y'"], "c": {"deep": [at, None]}} for at in range(500)]
            conn.execute(insert(temporary), rows)
            got = conn.execute(select(temporary).where(temporary.c.c["deep"][0].as_integer() == 7)).one()
            equal(tuple(got), (7, ["x", "y'"], {"deep": [7, None]}))
            conn.execute(insert(temporary).values(a=1, b=[], c=None).returning(temporary.c.a)).one()
            conn.rollback()

    @group("prepared")
    def _():
        def work(number):
            for at in range(TIMES // CONNECTIONS):
                with engine.connect() as conn:
                    equal(conn.scalar(select(func.abs(-number) + at)), number + at)

        together(CONNECTIONS, work)

    @group("errors")
    def _():
        with engine.connect() as conn:
            try:
                conn.execute(text("SELECT * FROM nowhere"))
                raise AssertionError("found")
            except DBAPIError as error:
                equal(getattr(error.orig, "sqlstate", None) or error.orig.pgcode, "42P01")

    engine.dispose()


for driver, make in ENGINES.items():
    if driver == "psycopg":
        sync_groups(driver, make)


@group("on psycopg2")
def _():
    engine = ENGINES["psycopg2"]()
    with Session(engine) as session:
        orm(session)
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as conn:
        rows = conn.execution_options(stream_results=True).execute(text(f"SELECT g FROM generate_series(1, {ROWS}) g"))
        equal(sum(row[0] for row in rows), total(ROWS))
    engine.dispose()


@group("on asyncpg")
def _():
    async def main():
        engine = create_async_engine(f"postgresql+asyncpg://{ADDRESS}", pool_size=CONNECTIONS)
        async with AsyncSession(engine) as session:
            await session.run_sync(orm)
        async with engine.connect() as conn:
            metadata = MetaData()
            await conn.run_sync(metadata.reflect)
            assert "runs" in metadata.tables
            rows = await conn.stream(text(f"SELECT g FROM generate_series(1, {ROWS}) g"))
            equal(sum([row[0] async for row in rows]), total(ROWS))

        async def work(number):
            for at in range(TIMES // CONNECTIONS):
                async with engine.connect() as conn:
                    equal(await conn.scalar(select(func.abs(-number) + at)), number + at)

        await asyncio.gather(*(work(number) for number in range(CONNECTIONS)))
        await engine.dispose()

    asyncio.run(main())


finish()
