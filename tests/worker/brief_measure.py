"""A short measurement of the fixed images, for the trainings of tests.

They have a few steps, so that they would spend most of their time on it: they make one prediction
of each quarter of the levels. Runs are compared with each other, so all trainers of tests call
this.
"""

from __future__ import annotations


def measure_briefly() -> None:
    """Make it short in this process. Imports torch, so a trainer calls it within `lean_imports`."""
    from worker.core.training.data import validation
    from worker.core.training.ruined import QUARTERS

    validation.FIXED_PREDICTIONS = len(QUARTERS)
