"""`brushwork adapters TOOL …`: tools for LoRA files, without registry, broker or server.

Each tool is a function of a module of this folder, which may return an exit code. The modules
import torch at their top, so they are imported on use; `arguments` parses without them.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import import_module
from typing import TYPE_CHECKING

from app.cli.adapter_files.arguments import MODULES
from worker.core.bases.family import BaseModelError
from worker.core.lora_files.errors import AdapterError, LossError

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Run a tool; print a message and return 1 if the file cannot be used."""
    try:
        module = import_module(f"{__name__}.{MODULES.get(arguments.tool, 'files')}")
        return getattr(module, arguments.tool)(arguments) or 0
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
