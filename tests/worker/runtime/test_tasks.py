from __future__ import annotations

from app.registry.wakeups import TASK_NAMES
from worker.runtime import tasks


def test_wake_ups_name_the_tasks_that_workers_register() -> None:
    assert {task.name for task in (tasks.train, tasks.render, tasks.io)} == set(TASK_NAMES.values())
