"""A run that a train worker carries out, and what it is trained from, or why it cannot be."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sqlmodel import Session

from app.registry.adapters.versions.create_version import future_slug
from app.registry.base_models import service as base_models
from app.registry.config import Settings
from app.registry.datasets.used_datasets import UsedDataset, used_datasets
from app.registry.db import Database
from app.registry.errors import AppError
from app.registry.storage.store import BlobStore
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.runs import Run
from worker.runtime.job_progress import RefusedError
from worker.runtime.lease import Lease
from worker.runtime.scratch import ItemsToTrain
from worker.runtime.trainer_process import WarmTrainer


@dataclass(frozen=True)
class TrainerTimeouts:
    """Seconds after which an unresponsive trainer is killed."""

    cancel: float = 8.0
    drain: float = 25.0
    stall: float = 900.0


@dataclass(frozen=True)
class RunWork:
    """A claimed run. `stopping`: set when the worker stops."""

    settings: Settings
    database: Database
    store: BlobStore
    trainers: WarmTrainer
    timeouts: TrainerTimeouts
    run: Run
    lease: Lease
    stopping: threading.Event


@dataclass(frozen=True)
class RunInputs:
    """Base model and data of a run; `slug` is the slug that its adapter will get."""

    base: BaseModel
    datasets: list[UsedDataset]
    images: list[ItemsToTrain]
    slug: str


def load_inputs(session: Session, run: Run) -> RunInputs:
    """The rows that a run is trained from. Raises RefusedError if its base model is not ready."""
    base = session.get_one(BaseModel, run.base_model_id)
    try:
        base_models.require_ready(base)
    except AppError as error:
        raise RefusedError("base_model", error.detail) from error
    used = used_datasets(session, run)
    images = [
        ItemsToTrain(
            session.get_one(DatasetVersion, one.version_id).items, one.repeats, one.place - 1
        )
        for one in used
    ]
    regularization = session.get(DatasetVersion, run.regularization_version_id or 0)
    if regularization is not None:
        images.append(ItemsToTrain(regularization.items, is_regularization=True))
    return RunInputs(base, used, images, future_slug(session, run.name))
