"""`brushwork adapters TOOL …`: tools for LoRA files, without registry, broker or server.

Each tool is a module of this folder with `run(arguments, settings)`, which returns the exit code.
It imports torch at its top, so it is itself imported on use; `arguments` parses without it.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import import_module
from typing import TYPE_CHECKING

from worker.core.bases.family import BaseModelError
from worker.core.lora_files.errors import AdapterError, LossError

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Run a tool; print a message and return 1 if the file cannot be used."""
    try:
        code: int = import_module(f"{__name__}.{arguments.tool}").run(arguments, settings)
    except LossError as error:
        print(
            f"{error} Convert the file first: brushwork adapters convert IN OUT --allow-loss.",
            file=sys.stderr,
        )
        return 1
    except (AdapterError, BaseModelError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'The file'}: {error.strerror}.", file=sys.stderr)
        return 1
    return code
