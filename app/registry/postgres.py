"""Connections to PostgreSQL that end when the server does not answer.

libpq waits for an answer for ever. A server machine that lost its power, or a firewall that forgot
a connection, is noticed by probes of TCP; a server that is frozen only by the time it takes.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

CONNECT_SECONDS = 5
PROBES = {  # a connection to a machine that is gone ends after 25 seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

ResultT = TypeVar("ResultT")


class Connection(psycopg.Connection[TupleRow]):
    """A connection that closes when an answer takes longer than `answer_seconds`."""

    answer_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, ResultT], *arguments: Any, **options: Any) -> ResultT:
        """The result of an exchange. Raises OperationalError if the server does not answer.

        The text of an error leaves out its details, which are the values of a row.
        """
        if self.answer_seconds is not None:
            gen = self._in_time(gen, self.answer_seconds)
        try:
            return super().wait(gen, *arguments, **options)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            if error.diag.message_primary:  # it comes from the server
                error.args = (error.diag.message_primary,)
            raise

    def _in_time(
        self, exchange: Generator[Any, Any, ResultT], seconds: float
    ) -> Generator[Any, Any, ResultT]:
        deadline = time.monotonic() + seconds
        try:
            wanted = next(exchange)
            while True:
                # asked again every 0.1 s, also when nothing came
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()  # nobody knows what it will still answer
                    raise psycopg.OperationalError(
                        f"the server did not answer within {seconds:.0f} seconds"
                    )
                wanted = exchange.send(ready)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def connect(parameters: dict[str, Any], *, answer_seconds: float | None) -> Connection:
    """A connection with these parameters of libpq; no limit where `answer_seconds` is None."""
    options = {"connect_timeout": CONNECT_SECONDS, **PROBES, **parameters}
    connection: Connection = Connection.connect(**options)
    connection.answer_seconds = answer_seconds
    return connection
