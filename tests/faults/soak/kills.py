"""Random kills of a soak: when, which process, and how long until its successor is at work."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from sqlmodel import col, select

from app.registry.job_kinds.states import JobStatus
from app.registry.tables.jobs import WorkerPresence
from app.registry.tables.runs import Run
from tests.faults.soak.figures import Figures
from tests.faults.stacks import (
    BROKER,
    IO,
    LIBRARY_SERVER,
    REGISTRY_SERVER,
    RENDER,
    TRAIN,
    TRAINER,
    WEB,
    WORKERS,
    FaultyStack,
)

TARGETS = (TRAINER, TRAINER, TRAIN, RENDER, IO, WEB, BROKER, LIBRARY_SERVER, REGISTRY_SERVER)
"""Processes to kill; a trainer twice as often as the others."""

TRAINING = frozenset({TRAINER, TRAIN, LIBRARY_SERVER, REGISTRY_SERVER})
"""Processes without which a training ends."""

PAUSE_SECONDS = (12.0, 30.0)  # longer than what the supervisor counts as a failed start
RECOVERY_SECONDS = 120.0
POLL_SECONDS = 0.05


class Kills:
    """Kills a random process every now and then, until `stop`."""

    def __init__(self, stack: FaultyStack, figures: Figures, seed: int) -> None:
        self._stack = stack
        self._figures = figures
        self._rng = random.Random(f"{seed} kills")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._repeat)

    def start(self) -> None:
        """Begin, after a first pause."""
        self._thread.start()

    def stop(self) -> None:
        """Return when the last one has recovered."""
        self._stopping.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._stopping.wait(self._rng.uniform(*PAUSE_SECONDS)):
            name = self._rng.choice(TARGETS)
            if not self._stack.named(name):
                continue  # no trainer, while one ends and the next is not warm yet
            if name in TRAINING and self._is_last_attempt():
                continue  # the third one in a row without a checkpoint would rightly fail the run
            began = time.monotonic()
            victims = self._stack.kill(name)
            if self._wait(lambda name=name, victims=victims: self._is_back(name, victims)):
                self._figures.recovered(name, time.monotonic() - began)
            else:
                self._figures.break_promise(f"{name} did not come back after a kill")

    def _is_last_attempt(self) -> bool:
        """True while a run is in its last attempt before a newer checkpoint."""
        last = select(Run.id).where(
            col(Run.attempt) >= Run.max_attempts, Run.status == JobStatus.RUNNING
        )
        with self._stack.registry.read() as session:
            return session.exec(last.limit(1)).first() is not None

    def _wait(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _is_back(self, name: str, victims: list[int]) -> bool:
        """True when another process of this name is at work."""
        successors = set(self._stack.named(name)) - set(victims)
        if not successors:
            return False
        if name == WEB:
            return self._stack.is_answering()
        if name in WORKERS:
            with self._stack.registry.read() as session:
                seen = set(session.exec(select(WorkerPresence.pid)))
            return bool(seen & successors)
        return True
