"""PostgreSQL that does not answer: the connection ends, and the next one is another."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.outages import DatabaseUnavailable, outage
from tests.faults.proxy import Proxy

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


def test_a_slow_answer_without_a_limit_is_waited_for(postgres_url: str) -> None:
    engine = make_engine(Settings(database_url=postgres_url).sqlalchemy_url)
    with engine.connect() as connection:
        slept = connection.execute(sa.text("SELECT pg_sleep(0.4) IS NOT NULL")).scalar()
    assert slept
    engine.dispose()
