"""Celery's treatment of the broker's messages, where its defaults do not fit wake-ups.

Anybody who reaches the broker can put anything into a queue, and a wake-up is worth nothing by
itself. So any other message is dropped with one line in the log and ends no worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery.worker.consumer import Consumer
from kombu.transport import TRANSPORT_ALIASES, filesystem, redis
from redis.exceptions import ResponseError

SHOWN = 120  # characters of an error
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""Errors of kombu for a message that is not JSON, or JSON of another shape."""
NOISY = ("celery.worker.strategy", "celery.app.trace")  # "received" and "succeeded" per wake-up

log = logging.getLogger(__name__)


def drop_garbage() -> None:
    """Make every connection of this process drop messages that cannot be read."""
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = f"{__name__}:RedisTransport"
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:FolderTransport"


def quiet_celery() -> None:
    """Keep the lines that Celery writes for every wake-up out of the log; jobs have their own."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


class RedisChannel(redis.Channel):  # type: ignore[misc] # kombu has no types
    """A channel that skips messages it cannot read."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except UNREADABLE as error:
            raise _dropped(error) from None

    def _get(self, queue: str) -> Any:
        try:
            return super()._get(queue)
        except UNREADABLE as error:
            raise _dropped(error) from None


class RedisTransport(redis.Transport):  # type: ignore[misc]
    """Redis and Valkey.

    A server that refuses commands, such as one whose disk is full, is asked again like one that is
    away. kombu counts this as an error of the channel, which ends a worker of Celery.
    """

    Channel = RedisChannel
    connection_errors = (*redis.Transport.connection_errors, ResponseError)


class FolderChannel(filesystem.Channel):  # type: ignore[misc]
    """A channel that skips messages it cannot read."""

    def _get(self, queue: str) -> Any:
        try:
            message = super()._get(queue)
            self.Message(message, channel=self)  # as every consumer does
        except UNREADABLE as error:
            raise _dropped(error) from None
        return message


class FolderTransport(filesystem.Transport):  # type: ignore[misc]
    """Messages as files in a folder."""

    Channel = FolderChannel


class WakeUpConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """A consumer that drops other messages than wake-ups with one line instead of a page."""

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """A handler of messages that no message can break."""
        handle = super().create_task_handler(*args, **options)

        def handle_or_drop(message: Any) -> Any:
            try:
                return handle(message)
            except UNREADABLE as error:
                return self._drop(message, error)

        return handle_or_drop

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """JSON that is not a task."""
        self._drop(message, "it is no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task of another program."""
        self._drop(message, f"there is no task {exc}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task without what a task needs."""
        self._drop(message, exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A body of another type, or in a damaged encoding."""
        self._drop(message, exc)

    def _drop(self, message: Any, reason: object) -> None:
        _log_dropped(reason)
        message.reject_log_error(log, self.connection_errors)


def _dropped(error: Exception) -> Empty:
    _log_dropped(error)
    return Empty()


def _log_dropped(reason: object) -> None:
    line = " ".join(str(reason).split())[:SHOWN]
    log.warning("Dropped a message that is no wake-up: %s", line or type(reason).__name__)
