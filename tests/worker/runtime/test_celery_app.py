from __future__ import annotations

from app.registry.wakeups import TASK_NAMES
from worker.runtime.celery_app import celery


def test_workers_register_the_tasks_that_wake_ups_name() -> None:
    assert set(TASK_NAMES.values()) <= set(celery.tasks)
