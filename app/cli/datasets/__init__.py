"""`brushwork datasets ACTION …`: what the pages of datasets do, without a server.

Each action is a function of a module of this folder, such as `run_list(arguments, state)`, which
returns the exit code. The modules are imported on use; `arguments` parses without them.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import import_module
from typing import TYPE_CHECKING

from app.cli.datasets.arguments import MODULES

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Carry out an action; print a message and return 1 on failure.

    Raises UnusableDatabase.
    """
    from app.cli.database import require_database  # loads SQLAlchemy, which --help does without
    from app.registry.errors import AppError
    from app.registry.state import make_state

    require_database(settings)
    state = make_state(settings)
    try:
        module = import_module(f"{__name__}.{MODULES[arguments.action]}")
        code: int = getattr(module, f"run_{arguments.action}")(arguments, state)
    except AppError as error:
        print(error.detail, file=sys.stderr)
        return 1
    finally:
        state.close()
    return code
