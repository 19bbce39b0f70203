"""PostgreSQL that does not answer: the connection ends, and the next one is another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from app.registry.blobs.guard import lock_deletion
from app.registry.config import Settings
from app.registry.datasets.service import change_dataset, create_dataset, get_dataset
from app.registry.db import IDLE_LIMIT, Database, Session, make_engine
from app.registry.outages import DatabaseBusy, DatabaseUnavailable, outage
from tests.conftest import empty_tables
from tests.faults.proxy import Proxy
from worker.runtime.outages.patience import WAITS_FOR_DATABASE, reason_to_wait

ANSWER_SECONDS = 0.3


def test_a_server_that_hangs_counts_as_away_and_is_connected_anew(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    user = parts.netloc.rpartition("@")[0]
    with contextlib.closing(Proxy(parts.port or 5432)) as proxy:
        url = parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}").geturl()
        engine = make_engine(
            Settings(database_url=url).sqlalchemy_url, answer_seconds=ANSWER_SECONDS
        )
        database = Database(engine)
        with database.read() as session:
            number = session.connection().execute(sa.text("SELECT pg_backend_pid()")).scalar()
            proxy.hang()
            with pytest.raises(sa.exc.OperationalError, match="did not answer") as raised:
                session.connection().execute(sa.text("SELECT 1"))
        assert isinstance(outage(raised.value), DatabaseUnavailable)
        proxy.forward()
        with database.read() as session:
            other = session.connection().execute(sa.text("SELECT pg_backend_pid()")).scalar()
        assert other != number
        database.dispose()


@pytest.fixture
def on_postgres(migrated_postgres: sa.Engine) -> Iterator[Database]:
    """An empty registry on PostgreSQL with connections of its own, as processes have them."""
    with migrated_postgres.begin() as connection:
        empty_tables(connection)
    database = Database(make_engine(migrated_postgres.url.render_as_string(hide_password=False)))
    yield database
    database.dispose()


def wait_until_ended(engine: sa.Engine, session: Session) -> None:
    """Let the transaction of this session idle until the server has ended it, after 50 ms."""
    number = session.connection().execute(sa.text("SELECT pg_backend_pid()")).scalar()
    session.connection().execute(sa.text(f"SET LOCAL {IDLE_LIMIT} = 50"))
    there = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :number")
    with engine.connect() as other:
        while other.execute(there, {"number": number}).scalar():
            other.rollback()
            time.sleep(0.02)


@pytest.mark.parametrize("then", ["statement", "commit"])
def test_a_transaction_that_idles_is_ended_and_keeps_no_row_locked(
    on_postgres: Database, migrated_postgres: sa.Engine, then: str
) -> None:
    with on_postgres.write() as session:
        key = create_dataset(session, "Ink").key

    def idle() -> None:
        with on_postgres.write() as session:
            change_dataset(session, key, name="Chalk")
            session.flush()
            wait_until_ended(migrated_postgres, session)
            with migrated_postgres.begin() as other:  # waits for nobody
                other.exec_driver_sql("UPDATE dataset SET trigger_word = 'ink'")
            if then == "statement":
                get_dataset(session, key, lock=True)

    with pytest.raises(sa.exc.InternalError) as raised:
        idle()
    assert isinstance(outage(raised.value), DatabaseBusy)
    assert reason_to_wait(raised.value) == WAITS_FOR_DATABASE  # a job is done again
    with on_postgres.write() as session:
        dataset = get_dataset(session, key, lock=True)
        assert (dataset.name, dataset.trigger_word) == ("Ink", "ink")


def test_only_the_deletion_of_files_may_idle_for_longer_than_a_minute(
    on_postgres: Database,
) -> None:
    def limit(session: Session) -> str:
        found: str = session.connection().execute(sa.text(f"SHOW {IDLE_LIMIT}")).scalar_one()
        return found

    with on_postgres.write() as session:
        lock_deletion(session)
        assert limit(session) == "0"
    with on_postgres.write() as session:
        assert limit(session) == "1min"


def test_a_slow_answer_without_a_limit_is_waited_for(postgres_url: str) -> None:
    engine = make_engine(Settings(database_url=postgres_url).sqlalchemy_url)
    with engine.connect() as connection:
        slept = connection.execute(sa.text("SELECT pg_sleep(0.4) IS NOT NULL")).scalar()
    assert slept
    engine.dispose()
