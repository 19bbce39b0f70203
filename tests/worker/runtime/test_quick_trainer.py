"""The trainer that makes up what it learns says what a real one says, and goes on as it does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from app.registry.tables.runs import Run
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import Registry, noted_messages
from worker.core.training.outcome import TrainedAdapter
from worker.runtime.messages import ExportReport, Heartbeat, Message

SAME_VALUES = ("step", "total", "phase", "prompt_index", "prompt", "seed", "outcome", "steps")
MADE_UP = ("proof",)  # of a download: the quick trainer loads it with no program


def described(value: Any) -> Any:
    """The fields of a message with their types, and the values that no training changes."""
    if isinstance(value, dict):
        return {
            name: one if name in SAME_VALUES else described(one)
            for name, one in value.items()
            if name not in MADE_UP
        }
    return [described(one) for one in value] if isinstance(value, list) else type(value).__name__


def story(messages: list[Message]) -> list[tuple[str, Any]]:
    """A trainer's messages about its training, from the first to the last."""
    said = [one for one in messages if not isinstance(one, Heartbeat)]
    ends = [number for number, one in enumerate(said) if isinstance(one, ExportReport)]
    assert len(ends) == 1
    return [(type(one).__name__, described(asdict(one))) for one in said[: ends[0] + 1]]


def test_it_sends_the_messages_of_a_real_trainer(
    trained: TrainedRegistry, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = noted_messages(monkeypatch)
    run_id = registry.new_run()
    with registry.working(registry.train_jobs()):
        assert registry.until_final(Run, run_id).status == "succeeded"
    assert story(messages) == story(trained.messages)
    kinds = {kind for kind, _ in story(messages)}
    assert kinds >= {"Ready", "BaseFacts", "Arithmetic", "PhaseStarted", "StepDone", "FixedLoss"}
    assert kinds >= {"SampleSaved", "CheckpointSaved", TrainedAdapter.__name__}
