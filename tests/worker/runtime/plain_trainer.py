"""`python -m worker.runtime.trainer`, with the short measurement of fixed images of the tests.

A run that a trainer of `trainer_server.py` trained is compared with one that this trained.
"""

from __future__ import annotations

import os

from worker.core.device import choose_device
from worker.core.lean_imports import lean_imports
from worker.runtime.trainer import main


def measure_briefly() -> None:
    """As in tests/worker/training."""
    from worker.core.training.data import validation
    from worker.core.training.ruined import QUARTERS

    validation.FIXED_PREDICTIONS = len(QUARTERS)


if __name__ == "__main__":
    with lean_imports(choose_device(os.environ.get("BRUSHWORK_DEVICE", "auto"))):
        measure_briefly()
    main()
