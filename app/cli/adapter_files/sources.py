"""The files and base models that the arguments of a tool name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.core import starter
from worker.core.lora_files.errors import AdapterError


def base_path(word: str) -> Path:
    """The path of a base model given as a path or `starter`."""
    return starter.PATH if word == "starter" else Path(word)


def weights_of(base: str | None) -> Any:
    """A reader for the weights of the given base model; None without one."""
    if base is None:
        return None
    # here, because it loads diffusers, which a tool without a base model does not need
    from worker.core.lora_files.base_weights import open_base_weights

    return open_base_weights(base_path(base))


def require_target(target: Path, *sources: Path) -> None:
    """Raise AdapterError if the target is a source file or not named `.safetensors`."""
    if target.suffix.lower() != ".safetensors":
        raise AdapterError(
            f"{target} was not written: choose a file name that ends in .safetensors."
        )
    if target.resolve() in {source.resolve() for source in sources}:
        raise AdapterError(
            f"{target} was not written, because it would overwrite the source file. Choose another "
            "name."
        )
