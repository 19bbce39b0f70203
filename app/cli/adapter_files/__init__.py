"""`brushwork adapters TOOL …`: tools for LoRA files, without registry, broker or server.

Each tool is a module of this folder with `add_arguments(parser)` and `run(arguments, settings)`,
which returns the exit code. A tool is imported on use, and imports torch when it runs.
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
    "inspect": "Show a LoRA file's base, ranks, strength by block, dead layers and hashes.",
    "check": "Check how seven programs read a LoRA file.",
    "convert": "Convert a LoRA file to another format or number type.",
    "merge": "Merge several weighted LoRA files into one.",
    "resize": "Reduce the rank of a LoRA file and show how much is kept.",
    "fuse": "Fuse LoRA files into a base model: a diffusers folder or a single file.",
    "extract": "Extract the difference of two base models as a LoRA file.",
}


def tool_parser(name: str, parser_class: type[ArgumentParser]) -> ArgumentParser:
    """The parser for a tool's arguments."""
    parser = parser_class(prog=f"brushwork adapters {name}", description=TOOLS[name])
    _module(name).add_arguments(parser)
    parser.set_defaults(module="adapter_files", tool=name)
    return parser


def run(arguments: Namespace, settings: Settings) -> int:
    """Run a tool; print a message and return 1 if the file cannot be used."""
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
    """The path of a base model given as a path or `starter`."""
    from worker.core import starter

    return starter.PATH if word == "starter" else Path(word)


def weights_of(base: str | None) -> Any:
    """A reader for the weights of the given base model; None without one."""
    if base is None:
        return None
    from worker.core.lora_files.base_weights import (
        open_base_weights,  # diffusers and transformers: seconds
    )

    return open_base_weights(base_path(base))


def require_target(target: Path, *sources: Path) -> None:
    """Raise AdapterError if the target is a source file or not named `.safetensors`."""
    from worker.core.lora_files.canonical import AdapterError

    if target.suffix.lower() != ".safetensors":
        raise AdapterError(
            f"{target} was not written: choose a file name that ends in .safetensors."
        )
    if target.resolve() in {source.resolve() for source in sources}:
        raise AdapterError(
            f"{target} was not written, because it would overwrite the source file. Choose another "
            "name."
        )


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")
