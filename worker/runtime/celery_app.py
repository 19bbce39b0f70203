"""The Celery application of the workers: settings, and the room that belongs to this process."""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, signals

from app.registry.config import Settings
from app.registry.wakeups import celery_settings
from worker.runtime import process

log = logging.getLogger(__name__)

settings = Settings()
celery = Celery("brushwork")
celery.conf.update(celery_settings(settings.broker_url or "redis://127.0.0.1:6379/0"))


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def open_rooms(instance: Any, **_: Any) -> None:
    """Start working at once, whether or not the broker answers; a pool child starts by itself."""
    queues = list(instance.app.amqp.queues.consume_from)
    if "prefork" not in str(instance.pool_cls):
        process.start(settings, queues)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def open_room_in_child(**_: Any) -> None:
    """A prefork child is where rendering happens: the warm pipeline lives in it."""
    process.start(settings, ["render"])


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def drain(**_: Any) -> None:
    """SIGTERM: running jobs save what they have and go back to the queue."""
    process.request_stop()


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def leave(**_: Any) -> None:
    """Wait until the jobs were given back, then sign off."""
    process.stop()
