"""Chooses the torch device, and the number of CPU threads."""

from __future__ import annotations

import sys

OFFLINE_LIBRARIES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of a process that imports torch and the libraries on it."""


def choose_device(setting: str) -> str:
    """The torch device for a setting; `auto` means CUDA, else Apple's GPU, else the CPU."""
    if setting != "auto":
        return setting
    return next(name for name in ("cuda", "mps", "cpu") if has_device(name))


def has_device(name: str) -> bool:
    """True when torch finds this device: `cpu`, `mps`, `cuda`, or one of several as `cuda:1`."""
    import torch  # here, so that a named device is chosen without it

    kind, _, index = name.partition(":")
    if kind == "cuda":
        return torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()
    return kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available())


def set_threads(count: int) -> None:
    """Set the threads of torch if it is loaded: it reads the environment only on import."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
