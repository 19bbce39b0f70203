"""Runs to compare, and fewer images than a blind test really draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.registry.state import AppState
from tests import fake_workers
from worker.core.evaluation import preferences

SCENES = 24


@pytest.fixture
def run(state: AppState) -> int:
    """A run on ten images that ended, with checkpoints at steps 20 and 40."""
    training = fake_workers.run_with_checkpoints(state, fake_workers.dataset(state, pictures=10))
    training.finish()
    return training.run_id


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the images."""
    usual = preferences.planned

    def planned(candidates: int, **options: Any) -> preferences.Plan:
        return replace(usual(candidates, **options), scenes=SCENES)

    monkeypatch.setattr(preferences, "planned", planned)
