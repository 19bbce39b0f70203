"""How much memory a training took, and giving back what it no longer uses."""

import ctypes
import resource
import sys
from functools import cache

import torch


def peak_memory_bytes(device: str) -> int:
    """The most memory in use at once: the GPU's for a GPU run, else of the whole process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def release_memory() -> None:
    """Hand memory that was freed back to the system.

    glibc keeps freed pieces for itself; with the many tensors of a training on a CPU the process
    would grow for as long as it runs.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> "ctypes._NamedFuncPointer | None":
    """glibc's own function; None on other systems."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
