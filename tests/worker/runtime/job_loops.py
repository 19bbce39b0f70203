"""Helpers for tests of the worker runtime: a registry, a short config, job loops, waiting."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image as Picture
from PIL import ImageDraw
from sqlmodel import SQLModel, select

from app.registry.added_models.service import write_ready
from app.registry.base_models.service import BASE_MODELS, ensure_embedded
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.job_kinds.kinds import JobKind
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.storage import open_store
from app.registry.storage.store import BlobStore
from app.registry.tables.added_models import BaseSpeed
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.jobs import IoJob, Job
from app.registry.tables.runs import Checkpoint, Run
from tests.conftest import embedded_info
from tests.worker.runtime.trainer_server import TrainerServer
from worker.core.training.events import Event as TrainingEvent
from worker.runtime.job_loop import JobLoop, Work
from worker.runtime.job_progress import IoWork
from worker.runtime.lease import Lease
from worker.runtime.messages import FailureReport, Message, decode, encode
from worker.runtime.train_jobs import TrainJobs
from worker.runtime.trainer_process import TrainerProcess

PATIENCE_SECONDS = 240.0
SIDE = 64  # pixels; the embedded base may be larger, which only costs time here
CONFIG: dict[str, Any] = {
    "steps": 8,
    "batch_size": 2,
    "rank": 2,
    "alpha": 2.0,
    "learning_rate": 1e-3,
    "checkpoint_every": 2,
    "sample_every": 0,
    "sample_prompts": ["a red apple"],
    "sample_steps": 2,
    "precision": "fp32",
    "resolution": SIDE,
}


def running(*words: str, recursive: bool = False) -> list[psutil.Process]:
    """The processes of this one whose command contains one of these words; theirs too on demand."""

    def command(process: psutil.Process) -> str:
        try:
            return " ".join(process.cmdline())
        except psutil.NoSuchProcess:  # it has ended, perhaps as a zombie
            return ""

    children = psutil.Process().children(recursive=recursive)
    return [child for child in children if any(word in command(child) for word in words)]


@dataclass(frozen=True)
class Registry:
    """A registry with the embedded base and a dataset of four images."""

    settings: Settings
    database: Database
    store: BlobStore
    base_id: int
    dataset_id: int
    version_id: int
    loops: list[JobLoop]
    trainers: TrainerServer

    def new_run(
        self,
        name: str = "Chalk",
        *,
        parent: int | None = None,
        start: Checkpoint | None = None,
        **config: Any,
    ) -> int:
        """Queue a run, maybe one that goes on from a checkpoint; keywords change its config."""
        merged = CONFIG | config
        with self.database.write() as session:
            run = Run(
                name=name,
                dataset_id=self.dataset_id,
                dataset_version_id=self.version_id,
                base_model_id=self.base_id,
                trigger_word="chalk",
                config=merged,
                total_steps=merged["steps"],
                parent_id=parent,
            )
            key = jobs.enqueue(session, run).key
            if start is not None:
                values = start.model_dump(include={"step", "sha256", "size_bytes"})
                session.add(Checkpoint(run_id=key, **values))
            return key

    def row(self, table: type[Any], key: int) -> Any:
        """The row as it is now."""
        with self.database.read() as session:
            return session.get_one(table, key)

    def rows(self, table: type[Any], **values: Any) -> list[Any]:
        """Every row with these values, in the order they were stored."""
        with self.database.read() as session:
            return list(session.exec(select(table).filter_by(**values).order_by(table.id)))

    def until_final(self, table: type[Job], key: int) -> Any:
        """The row once it has ended."""

        def ended() -> SQLModel | None:
            found: Job = self.row(table, key)
            return found if found.state.is_final else None

        return wait_for(ended)

    def cancel(self, table: type[Job], key: int) -> None:
        """Ask for the end of a job."""
        with self.database.write() as session:
            jobs.request_cancel(session, table, session.get_one(table, key))

    def io_work(self, scratch: Path, job: IoJob | None = None, owner: str = "a") -> IoWork:
        """A job that the worker with this letter carries out."""
        job = job or IoJob(kind=JobKind.EXPORT_ADAPTER, id=0)
        lease = Lease(self.database, IoJob, Claim(job.key, owner * 32), seconds=60)
        stopping = threading.Event()
        return IoWork(self.settings, self.database, self.store, job, lease, scratch, stopping)

    def train_jobs(self, **options: Any) -> TrainJobs:
        """The train jobs here, whose trainers make up what they learn unless `command` is given.

        `trainers.command` is that of the real ones.
        """
        options = {"command": self.trainers.quick} | options
        return TrainJobs(self.settings, self.database, self.store, **options)

    @contextmanager
    def working(self, work: Work) -> Iterator[JobLoop]:
        """A job loop at work."""
        loop = JobLoop(
            self.database,
            work,
            lease_seconds=self.settings.lease_seconds,
            check_storage=self.store.check,
            accounts=self.settings.accounts,
        )
        loop.start()
        self.loops.append(loop)
        try:
            yield loop
        finally:
            self.loops.remove(loop)
            loop.request_stop()
            assert loop.join(PATIENCE_SECONDS)


def open_registry(
    folder: Path, template: Path, trainers: TrainerServer, *, is_measured: bool = True
) -> Registry:
    """A registry on SQLite in this folder, with a lease of two seconds.

    Train jobs calibrate nothing where `is_measured`.
    """
    data_dir = folder / "data"
    data_dir.mkdir()
    (data_dir / "brushwork.db").write_bytes(template.read_bytes())
    settings = Settings(
        _env_file=None, data_dir=data_dir, device="cpu", threads=1, lease_seconds=2.0
    )
    loops: list[JobLoop] = []

    def wakeup(queue: str) -> None:
        for loop in loops:
            if loop.work.table.queue == queue:
                loop.wake()

    database = Database(make_engine(settings.sqlalchemy_url), wakeup)
    store = open_store(None, data_dir)
    items = [
        {"sha256": blob, "clean_sha256": blob, "caption": caption, "width": 64, "height": 64}
        for blob, caption in (
            (store.put_bytes(picture(number)).sha256, f"shape {number}, chalk style")
            for number in range(4)
        )
    ]
    base_id = _add_base(database)
    with database.write() as session:
        dataset = Dataset(slug="shapes", name="Shapes", trigger_word="chalk")
        session.add(dataset)
        session.flush()
        version = DatasetVersion(
            dataset_id=dataset.key, fingerprint="f" * 64, image_count=4, items=items
        )
        session.add(version)
        if is_measured:
            session.add(
                BaseSpeed(
                    base_model_id=base_id,
                    batch_size=1,
                    resolution=SIDE,
                    rank=1,
                    layers="lora attention in all",
                    seconds_per_step=1.0,
                    trainable_parameters=1,
                    adapter_bytes=1,
                )
            )
    return Registry(settings, database, store, base_id, dataset.key, version.key, loops, trainers)


def _add_base(database: Database) -> int:
    with database.write() as session:
        base = ensure_embedded(session)
        session.flush()
        write_ready(session, BASE_MODELS, base.key, embedded_info())
        for job in session.exec(select(IoJob)):
            session.delete(job)
        return base.key


def add_images(registry: Registry) -> None:
    """Add the four images, without captions, to the dataset as it is now."""
    with registry.database.write() as session:
        for number in range(4):
            blob = registry.store.put_bytes(picture(number)).sha256
            session.add(
                Image(
                    dataset_id=registry.dataset_id,
                    sha256=blob,
                    clean_sha256=blob,
                    thumbnail_sha256=blob,
                    filename=f"{number}.png",
                    width=64,
                    height=64,
                    size_bytes=1,
                )
            )


def picture(number: int) -> bytes:
    """A small PNG with a shape that tells it from the others."""
    image = Picture.new("RGB", (64, 64), (30, 60, 50))
    ImageDraw.Draw(image).ellipse((8, 8, 24 + 8 * number, 40), fill=(230, 40 * number, 90))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def scripted_trainer(messages: Sequence[TrainingEvent | FailureReport]) -> tuple[str, ...]:
    """The command of a process that answers its order with these messages and ends."""
    lines = b"".join(encode(message) for message in messages)
    program = (
        "import json, os\n"
        "rest = b''\n"
        "while True:\n"
        "    *lines, rest = (rest + os.read(0, 65536)).split(b'\\n')\n"
        "    if any(json.loads(line)[0] == 'Train' for line in lines):\n"
        f"        os.write(1, {lines!r})\n"
        "        break\n"
    )
    return (sys.executable, "-I", "-S", "-c", program)


def noted_messages(patch: pytest.MonkeyPatch) -> list[Message]:
    """Every message that trainers send while this patch lasts, in order."""
    messages: list[Message] = []
    read = TrainerProcess._read_message

    def note(process: TrainerProcess, line: bytes) -> Message | None:
        messages.append(decode(line))
        return read(process, line)

    patch.setattr(TrainerProcess, "_read_message", note)
    return messages


def wait_for(what: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true result of `what`; the test fails when none comes in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.05)
    pytest.fail("it did not happen in time")
