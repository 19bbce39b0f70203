"""`python -m worker.runtime.trainer`, with the short measurement of fixed images of the tests.

A run that a trainer of `trainer_server.py` trained is compared with one that this trained.
"""

from __future__ import annotations

import os

from tests.worker.brief_measure import measure_briefly
from worker.core.device import choose_device
from worker.core.lean_imports import lean_imports
from worker.runtime.trainer import main

if __name__ == "__main__":
    with lean_imports(choose_device(os.environ.get("BRUSHWORK_DEVICE", "auto"))):
        measure_briefly()
    main()
