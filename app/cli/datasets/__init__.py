"""`brushwork datasets ACTION …`: what the pages of datasets do, without a server.

Each action is a module of this folder with `run(arguments, state)`, which returns the exit code; it
is imported on use. `arguments` parses without them.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import import_module
from typing import TYPE_CHECKING

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
        code: int = import_module(f"{__name__}.{arguments.action}_command").run(arguments, state)
    except AppError as error:
        print(error.detail, file=sys.stderr)
        return 1
    finally:
        state.close()
    return code
