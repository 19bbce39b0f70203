"""`brushwork train`: an adapter from a JSON config, with no server, database or broker."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from app.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Become the training core's own command; its exit code is ours, and so are its signals."""
    command = [sys.executable, "-m", "worker.training", str(arguments.config)]
    sys.stdout.flush()
    os.execv(sys.executable, command)
