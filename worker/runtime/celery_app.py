"""The Celery application of the workers; its signals start and stop the job loops.

Its tasks wake a job loop. They carry no data: the loop claims the next waiting row.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery, signals

from app.registry.config import Settings
from app.registry.job_kinds.states import Queue
from app.registry.wakeups import TASK_NAMES, celery_settings
from worker.runtime import broker, process

log = logging.getLogger(__name__)

settings = Settings()
broker.drop_garbage()
if settings.log_level != "DEBUG":
    broker.quiet_celery()
celery = Celery("brushwork")
celery.conf.update(celery_settings(settings.broker_url or "redis://127.0.0.1:6379/0"))
celery.conf.worker_consumer = "worker.runtime.broker:WakeUpConsumer"


def _add_task(queue: str, name: str) -> None:
    @celery.task(name=name)  # type: ignore[untyped-decorator]
    def wake() -> None:
        process.serve_wakeup(queue)


for _queue, _name in TASK_NAMES.items():
    _add_task(_queue, _name)


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def start_loops(instance: Any, **_: Any) -> None:
    """Start the job loops at once, even without a broker; a pool child starts its own."""
    queues = list(instance.app.amqp.queues.consume_from)
    if "prefork" not in str(instance.pool_cls):
        process.start(settings, queues)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def start_loop_in_child(**_: Any) -> None:
    """Start the render loop in the prefork child, which holds the warm pipeline."""
    process.start(settings, [Queue.RENDER])


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def drain_loops(**_: Any) -> None:
    """On SIGTERM, let running jobs save their state and return to the queue."""
    process.request_stop()


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def stop_loops(**_: Any) -> None:
    """Wait until running jobs have returned to the queue, then sign off."""
    process.stop()
