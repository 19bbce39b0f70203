"""`python -m app` with another embedded base: that of the environment variable `BASE`.

Processes that it spawns import this module, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.worker.runtime.trainer_server import BASE
from worker.core import starter

starter.PATH = Path(os.environ[BASE])

if __name__ == "__main__":
    from app.cli.main import main

    sys.exit(main())
