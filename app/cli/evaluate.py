"""`brushwork evaluate`: says which checkpoint of a training on a folder is the one to keep."""

from __future__ import annotations

from argparse import Namespace

from app.cli import train
from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Replace this process with the command of the core, which gets all flags."""
    return train.run(arguments, settings, module="worker.core.evaluation")
