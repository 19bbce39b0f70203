"""Celery tasks that wake a job loop. They carry no data: the loop claims the next waiting row."""

from __future__ import annotations

from app.registry.job_kinds.queues import Queue
from worker.runtime import process
from worker.runtime.celery_app import celery


@celery.task(name="worker.tasks.train")  # type: ignore[untyped-decorator]
def train() -> None:
    """Train the next waiting run."""
    process.serve_wakeup(Queue.TRAIN)


@celery.task(name="worker.tasks.render")  # type: ignore[untyped-decorator]
def render() -> None:
    """Process the next waiting render."""
    process.serve_wakeup(Queue.RENDER)


@celery.task(name="worker.tasks.io")  # type: ignore[untyped-decorator]
def io() -> None:
    """Process the next waiting io job."""
    process.serve_wakeup(Queue.IO)
