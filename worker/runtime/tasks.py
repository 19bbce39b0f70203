"""What hints wake: each looks for the best waiting row of its queue. They carry nothing."""

from __future__ import annotations

from worker.runtime import process
from worker.runtime.celery_app import celery


@celery.task(name="worker.tasks.train")  # type: ignore[untyped-decorator]
def train() -> None:
    """Train the best waiting run."""
    process.serve_hint("train")


@celery.task(name="worker.tasks.render")  # type: ignore[untyped-decorator]
def render() -> None:
    """Draw the best waiting render."""
    process.serve_hint("render")


@celery.task(name="worker.tasks.io")  # type: ignore[untyped-decorator]
def io() -> None:
    """Do the best waiting io job."""
    process.serve_hint("io")
