"""`brushwork name`: prints what images show, by the embedded eyes or a CLIP model."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from app.registry.config import Settings
from worker.core.device import OFFLINE_LIBRARIES


def run(arguments: Namespace, settings: Settings) -> int:
    """Replace this process with the command of the eyes, which gets all flags."""
    offline = OFFLINE_LIBRARIES if settings.hub == "off" else {}
    sys.stdout.flush()
    os.execve(sys.executable, command(arguments.words), {**os.environ, **offline})


def command(words: list[str]) -> list[str]:
    """The core's command line."""
    return [sys.executable, "-m", "worker.core.eyes", "name", *words]
