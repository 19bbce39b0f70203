"""The process of io jobs, whose caption models are stand-ins that take a while for each caption."""

from __future__ import annotations

import sys

from worker.runtime.local_captions import captioner
from worker.runtime.time_limits import child

STAND_IN = "tests.worker.runtime.local_captions.caption_stand_in"
SECONDS = "0.3"

if __name__ == "__main__":
    captioner.COMMAND = (sys.executable, "-m", STAND_IN, SECONDS)
    child.main()
