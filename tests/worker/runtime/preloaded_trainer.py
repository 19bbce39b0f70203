"""Imported by the fork server of the tests: a trainer with the embedded base in its memory."""

from __future__ import annotations

import worker.runtime.forking.libraries  # noqa: F401
from worker.core import starter
from worker.core.bases.load import load_base
from worker.core.training.load import load_for_training
from worker.runtime import trainer_orders

embedded = load_base(starter.PATH)
trainer_orders.load_for_training = lambda path, **how: (  # type: ignore[assignment]
    embedded if path == starter.PATH else load_for_training(path, **how)
)
trainer_orders.Trainer._warm_up = lambda _: None  # type: ignore[method-assign]
