"""The state that all attempts at runs of a train worker share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.registry.db import Database
from app.registry.storage.store import BlobStore
from worker.runtime.trainer_process import WarmTrainer


@dataclass(frozen=True)
class TrainerTimeouts:
    """Seconds after which an unresponsive trainer is killed."""

    cancel: float = 8.0
    drain: float = 25.0
    stall: float = 900.0


@dataclass(frozen=True)
class TrainingHost:
    """Services shared by all attempts of this worker; `evaluates`: runs that ask for it."""

    data_dir: Path
    database: Database
    store: BlobStore
    trainers: WarmTrainer
    timeouts: TrainerTimeouts
    evaluates: bool
