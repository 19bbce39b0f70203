"""`python -m app` with another embedded base: that of the environment variable `BASE`.

Its train workers start trainers that make up what they learn. Processes that it spawns import this
module, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.worker.runtime.trainer_server import BASE, SLEEPY
from worker.core import starter
from worker.runtime import process

starter.PATH = Path(os.environ[BASE])
process.TRAINER_COMMAND = SLEEPY

if __name__ == "__main__":
    from app.cli.main import main

    sys.exit(main())
