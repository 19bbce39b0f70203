"""Pipelines that the files of a process share: loaded once, without adapters in each test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worker.core import starter
from worker.core.inference.pipeline import ResidentPipeline

SCHEDULES: dict[str, dict[str, Any]] = {
    "epsilon": {},
    "v": {"prediction_type": "v_prediction"},
    "zero-snr": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
}


@pytest.fixture(scope="session")
def _shallow_pipeline(shallow_sd15_folder: Path) -> ResidentPipeline:
    return ResidentPipeline.load(shallow_sd15_folder, name="shallow")


@pytest.fixture
def pipeline(_shallow_pipeline: ResidentPipeline) -> Iterator[ResidentPipeline]:
    """A pipeline of few layers and 64 px."""
    yield _shallow_pipeline
    _shallow_pipeline.set_adapters([])


@pytest.fixture(scope="session")
def _embedded_pipeline() -> ResidentPipeline:
    return ResidentPipeline.load(starter.PATH, name="starter")


@pytest.fixture
def embedded(_embedded_pipeline: ResidentPipeline) -> Iterator[ResidentPipeline]:
    """The embedded base model, for tests of what its images show."""
    yield _embedded_pipeline
    _embedded_pipeline.set_adapters([])


@pytest.fixture(scope="session")
def schedule_folders(
    shallow_sd15_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A base of few layers for each noise schedule."""
    root = tmp_path_factory.mktemp("schedules")
    folders = {}
    for name, schedule in SCHEDULES.items():
        folders[name] = shutil.copytree(shallow_sd15_folder, root / name)
        file = folders[name] / "scheduler/scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | schedule))
    return folders


@pytest.fixture(scope="session")
def schedule_pipelines(schedule_folders: dict[str, Path]) -> dict[str, ResidentPipeline]:
    """The same, loaded; no test gives them an adapter."""
    return {name: ResidentPipeline.load(folder) for name, folder in schedule_folders.items()}
