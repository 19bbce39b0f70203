"""Imported by the fork server of the tests: workers, and trainers with their base in memory."""

from __future__ import annotations

import os
from pathlib import Path

import worker.runtime.forking.libraries
import worker.runtime.worker_imports  # noqa: F401
from tests.worker.brief_measure import measure_briefly
from tests.worker.runtime.trainer_server import BASE
from worker.core.bases.load import load_base
from worker.core.training.load import load_for_training
from worker.runtime import trainer_orders

path = Path(os.environ[BASE])
loaded = load_base(path)
trainer_orders.load_for_training = lambda model, **how: (  # type: ignore[assignment]
    loaded if model == path else load_for_training(model, **how)
)
measure_briefly()
trainer_orders.Trainer._warm_up = lambda _: None  # type: ignore[method-assign]
