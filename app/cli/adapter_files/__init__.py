"""`brushwork adapters TOOL …`: work on LoRA files alone, without registry, broker or server.

Each tool is a module of this folder with `add_arguments(parser)` and `run(arguments, settings)`,
which gives the exit code. A tool is imported when it is asked for, and imports torch when it runs.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.registry.config import Settings

TOOLS = {
    "inspect": "Show what a LoRA file is: base, ranks, strength by block, dead layers, hashes.",
    "check": "Tell what seven programs make of a LoRA file.",
    "convert": "Write a LoRA file in another naming or number type.",
    "merge": "Make one LoRA file of several, each with its weight.",
    "resize": "Make a LoRA file smaller; shows how much of it is kept.",
    "fuse": "Write LoRA files into a base model: a diffusers folder or a single file.",
    "extract": "Write the difference of two base models as a LoRA file.",
}


def tool_parser(name: str, parser_class: type[ArgumentParser]) -> ArgumentParser:
    """The parser of a tool's own words."""
    parser = parser_class(prog=f"brushwork adapters {name}", description=TOOLS[name])
    _module(name).add_arguments(parser)
    parser.set_defaults(module="adapter_files", tool=name)
    return parser


def run(arguments: Namespace, settings: Settings) -> int:
    """Run one tool; 1 with a sentence when the file does not allow it."""
    from worker.core.bases.family import BaseModelError
    from worker.core.lora_files.canonical import AdapterError

    try:
        code: int = _module(arguments.tool).run(arguments, settings)
    except (AdapterError, BaseModelError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or 'The file'}: {error.strerror}.", file=sys.stderr)
        return 1
    return code


def base_path(word: str) -> Path:
    """Where the base model that a flag names lies: a path, or `starter`."""
    from worker.core import starter

    return starter.PATH if word == "starter" else Path(word)


def weights_of(base: str | None) -> Any:
    """What gives the weights of the base that a flag names; None without one."""
    if base is None:
        return None
    from worker.core.lora_files.base_weights import (
        open_base_weights,  # diffusers and transformers: seconds
    )

    return open_base_weights(base_path(base))


def require_target(target: Path, *sources: Path) -> None:
    """Raise AdapterError for a file that must not be written: a source, or not by its name."""
    from worker.core.lora_files.canonical import AdapterError

    if target.suffix.lower() != ".safetensors":
        raise AdapterError(
            f"{target} was not written: a LoRA file has a name that ends in .safetensors."
        )
    if target.resolve() in {source.resolve() for source in sources}:
        raise AdapterError(
            f"{target} was not written: it would take the place of the file that is read. "
            "Choose another name."
        )


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")
