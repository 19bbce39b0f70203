"""`brushwork datasets ACTION …`: what the pages of datasets do, without a server.

Each action is a function of a module of this folder, such as `run_list(arguments, state)`, which
returns the exit code. The modules are imported on use; `arguments` parses without them.
"""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module
from typing import TYPE_CHECKING

from app.cli.datasets.arguments import MODULES

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Carry out an action; return its exit code. Raises UnusableDatabase."""
    from app.cli.database import open_state  # loads SQLAlchemy, which --help does without

    with open_state(settings) as state:
        module = import_module(f"{__name__}.{MODULES[arguments.action]}")
        code: int = getattr(module, f"run_{arguments.action}")(arguments, state)
        return code
