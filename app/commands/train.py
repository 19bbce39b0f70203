"""`brushwork train`: an adapter from a folder of pictures, with no server, database or broker."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from app.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Become the training core's own command; its flags, exit code and signals are ours."""
    sys.stdout.flush()
    os.execv(sys.executable, command(arguments.words, settings))


def command(words: list[str], settings: Settings) -> list[str]:
    """The core's command line; what a person wrote comes last, and so wins over the settings."""
    ours = ["--device", settings.device, "--threads", str(settings.threads)]
    return [sys.executable, "-m", "worker.training", *ours, *words]
