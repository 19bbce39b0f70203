"""Measures the memory of a training, and returns unused memory to the system."""

import ctypes
import resource
import sys
from functools import cache

import torch


def peak_memory_bytes(device: str) -> int:
    """The peak memory in bytes: the GPU's for a GPU run, else the process's."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def release_memory() -> None:
    """Return freed memory to the system.

    glibc keeps freed pieces; with the many tensors of a CPU training the process would grow as long
    as it runs.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> "ctypes._NamedFuncPointer | None":
    """glibc's malloc_trim; None on other systems."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
