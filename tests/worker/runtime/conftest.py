"""Registries for the tests of the worker runtime; one in which a run has been trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.registry.tables.adapters import AdapterFile
from app.registry.tables.runs import Run
from tests.worker.runtime.job_loops import Registry, noted_messages, open_registry
from tests.worker.runtime.trainer_server import TrainerServer
from worker.core import starter
from worker.runtime import job_loop
from worker.runtime.messages import Message

PLAIN_TRAINER = (sys.executable, "-m", "tests.worker.runtime.plain_trainer")
"""The command of a trainer process that imports all itself; `trainer_server.py` has the other."""


@pytest.fixture(scope="module", autouse=True)
def embedded_base(request: pytest.FixtureRequest) -> Iterator[Path]:
    """These tests are about jobs, not about the quality of images: their embedded base is small.

    A parameter is the name of the fixture of another one, such as that of a Z-Image.
    """
    folder: Path = request.getfixturevalue(getattr(request, "param", "small_starter"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starter, "PATH", folder)
        yield folder


@pytest.fixture
def registry(
    tmp_path: Path,
    sqlite_template: Path,
    trainers: TrainerServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Registry]:
    """A registry of this test alone.

    Its loops look often: wake-ups of another process or of the web app do not reach them.
    """
    monkeypatch.setattr(job_loop, "IDLE_SECONDS", 0.2)
    opened = open_registry(tmp_path, sqlite_template, trainers)
    yield opened
    opened.database.dispose()


@dataclass(frozen=True)
class TrainedRegistry:
    """A registry with a run that was trained without any break."""

    registry: Registry
    run_id: int
    work_folder: list[Path]  # what was in it at the end
    downloads: list[AdapterFile]  # those written by then; tests order more
    messages: list[Message]  # of the trainer, in order


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    small_starter: Path,
    trainers: TrainerServer,
) -> Iterator[TrainedRegistry]:
    """One training for all tests that look at what comes of it, all of it as a worker does it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starter, "PATH", small_starter)
        registry = open_registry(folder, sqlite_template, trainers, is_measured=False)
        run_id = registry.new_run(name="Chalk board")
        messages = noted_messages(patch)
        with registry.working(registry.train_jobs(command=PLAIN_TRAINER)) as loop:
            loop.serve_wakeup()
            registry.until_final(Run, run_id)
    work_folder = list((registry.settings.data_dir / "work").iterdir())
    yield TrainedRegistry(registry, run_id, work_folder, registry.rows(AdapterFile), messages)
    registry.database.dispose()
