"""Work for a stack that is about to break: a run that trains, and jobs that wait behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sqlmodel import select

from app.registry.tables.jobs import Event, Job
from app.registry.tables.renders import Render
from app.registry.tables.runs import Checkpoint, Run
from tests.faults.stacks import TRAINER, FaultyStack
from tests.images import make_png
from tests.versions import versions_of_run
from tests.worker.runtime.job_loops import SIDE, wait_for

MANY_STEPS = 20_000  # hours: a test stops the run when it has seen enough
CONFIG: dict[str, Any] = {
    "batch_size": 2,
    "rank": 2,
    "alpha": 2.0,
    "checkpoint_every": 20,
    "sample_every": 0,
    "sample_prompts": ["a red apple"],
    "sample_steps": 2,
    "precision": "fp32",
    "resolution": SIDE,
}
FINAL = ("succeeded", "failed", "canceled")
PATIENCE_SECONDS = 240.0
MORE_STEPS = 20
COMPUTED_SECONDS = 1.0  # of the 30 seconds of an outage, on a busy machine


@dataclass(frozen=True)
class Progress:
    """The progress of a training, and the number of its starts."""

    step: int
    attempt: int
    claims: int


@dataclass(frozen=True)
class Work:
    """A run that trains and has a checkpoint, and a run that waits for the same worker."""

    stack: FaultyStack
    dataset_id: int
    training: int
    waiting: int

    def state(self, run_id: int) -> dict[str, Any]:
        """The run as the API shows it."""
        return get(self.stack, f"/runs/{run_id}")

    def progress(self) -> Progress:
        """The progress of the training, as far as the registry knows."""
        run = self.state(self.training)
        claims = len(events(self.stack, Run, self.training, "running"))
        return Progress(run["step"], run["attempt"], claims)

    def until_further(self, steps: int = MORE_STEPS, *, since: Progress | None = None) -> None:
        """Return when the training has gone on by some steps."""
        before = since or self.progress()
        wait_for(lambda: self.progress().step >= before.step + steps, seconds=PATIENCE_SECONDS)

    def until_checkpoint(self) -> None:
        """Return when a newer checkpoint was stored."""
        before = newest_checkpoint(self.stack, self.training)
        wait_for(
            lambda: newest_checkpoint(self.stack, self.training) > before, seconds=PATIENCE_SECONDS
        )

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """The block costs the training neither its process nor an attempt; the other run waits."""
        before = self.progress()
        yield
        after = self.progress()
        training = self.state(self.training)
        assert training["status"] == "running", training
        assert after.claims == before.claims, "the training was taken from its worker"
        # a newer checkpoint starts the count again
        assert after.attempt <= before.attempt, (before, after)
        assert after.step >= before.step, (before, after)
        waiting = self.state(self.waiting)
        assert (waiting["status"], waiting["attempt"]) == ("queued", 0), waiting

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The trainer computes within the block, whether anybody is told or not."""
        before = self.stack.cpu_seconds(TRAINER)
        yield
        # a busy machine may have given it little time so far
        wait_for(
            lambda: self.stack.cpu_seconds(TRAINER) > before + COMPUTED_SECONDS,
            seconds=PATIENCE_SECONDS,
        )

    def is_at_work(self) -> bool:
        """True unless an earlier fault has ended one of the runs."""
        states = [self.state(run_id)["status"] for run_id in (self.training, self.waiting)]
        return states == ["running", "queued"]

    def finish(self) -> None:
        """Stop the training, which keeps its adapter; then the run that waited is trained."""
        with self.stack.client() as api:
            api.post(f"/runs/{self.training}/stop").raise_for_status()
        for run_id in (self.training, self.waiting):
            ended = until_final(self.stack, f"/runs/{run_id}")
            assert (ended["status"], ended["error"]) == ("succeeded", None), ended
            assert len(events(self.stack, Run, run_id, "succeeded")) == 1, run_id
            with self.stack.registry.read() as session:
                assert len(versions_of_run(session, run_id)) == 1, run_id


def events(stack: FaultyStack, table: type[Job], job_id: int, kind: str) -> Sequence[Event]:
    """The events of a job."""
    with stack.registry.read() as session:
        chosen = select(Event).where(
            Event.subject == table.__tablename__, Event.subject_id == job_id, Event.kind == kind
        )
        return session.exec(chosen).all()


def attempts_of(stack: FaultyStack, table: type[Job], job_id: int) -> int:
    """The number of counted attempts at a job."""
    with stack.registry.read() as session:
        return session.get_one(table, job_id).attempt


def get(stack: FaultyStack, place: str) -> dict[str, Any]:
    """The answer of the API, asked again until it answers."""

    def ask() -> dict[str, Any] | None:
        try:
            with stack.client() as api:
                answer = api.get(place)
        except httpx.TransportError:
            return None
        if answer.status_code >= 500:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    answer: dict[str, Any] = wait_for(ask, seconds=PATIENCE_SECONDS)
    return answer


def until_final(stack: FaultyStack, place: str) -> dict[str, Any]:
    """The job at `place` once it has ended."""

    def ended() -> dict[str, Any] | None:
        found = get(stack, place)
        return found if found["status"] in FINAL else None

    answer: dict[str, Any] = wait_for(ended, seconds=PATIENCE_SECONDS)
    return answer


def new_dataset(stack: FaultyStack, name: str = "Chalk", *, images: int = 4) -> int:
    """A dataset with captioned images."""
    files = []
    for number in range(images):
        files.append(("files", (f"{number}.png", make_png(number, (64, 64)))))
        files.append(("files", (f"{number}.txt", b"a shape, chalk style")))
    with stack.client() as api:
        body = {"name": name, "trigger_word": "chalk"}
        dataset_id: int = api.post("/datasets", json=body).raise_for_status().json()["id"]
        api.post(f"/datasets/{dataset_id}/images", files=files).raise_for_status()
    return dataset_id


def new_run(stack: FaultyStack, dataset_id: int, **config: Any) -> int:
    """A queued run; keywords change its config."""
    body = {"dataset_id": dataset_id, "preset": "quick", "config": CONFIG | config}
    with stack.client() as api:
        answer = api.post("/runs", json=body).raise_for_status()
    run_id: int = answer.json()["id"]
    return run_id


def new_render(stack: FaultyStack, prompt: str, *, seed: int = 1) -> int:
    """A queued render of two steps, of a small image."""
    body = {"prompt": prompt, "seed": seed, "steps": 2, "width": SIDE, "height": SIDE}
    with stack.client() as api:
        answer = api.post("/renders", json=body)
    render_id: int = answer.raise_for_status().json()["id"]
    return render_id


def begin_work(stack: FaultyStack, **config: Any) -> Work:
    """A run that trains and has stored a checkpoint, and one that waits."""
    dataset_id = new_dataset(stack)
    training = new_run(stack, dataset_id, steps=MANY_STEPS, **config)
    wait_for(lambda: newest_checkpoint(stack, training), seconds=PATIENCE_SECONDS)
    return Work(stack, dataset_id, training, new_run(stack, dataset_id, steps=4))


def newest_checkpoint(stack: FaultyStack, run_id: int) -> int:
    """The step of the newest stored checkpoint of a run; 0 without one."""
    with stack.registry.read() as session:
        steps = session.exec(select(Checkpoint.step).where(Checkpoint.run_id == run_id))
        return max(steps, default=0)


def is_rendered(stack: FaultyStack, render_id: int) -> bool:
    """True once the render has succeeded, in its first attempt; fails if it has failed."""
    render = get(stack, f"/renders/{render_id}")
    assert render["status"] in ("queued", "running", "succeeded"), render
    return bool(render["status"] == "succeeded")


def until_rendered(stack: FaultyStack, render_id: int) -> None:
    """Return when the render has succeeded; no attempt but that one was counted."""
    wait_for(lambda: is_rendered(stack, render_id), seconds=PATIENCE_SECONDS)
    assert attempts_of(stack, Render, render_id) == 1, "an outage was counted as an attempt"
