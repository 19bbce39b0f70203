"""Devices, threads and the environment of worker processes."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from app.registry.config import SECRETS
from app.registry.paths import python_path
from worker.core.device import OFFLINE_LIBRARIES
from worker.core.nvidia import cuda_command, has_nvidia_gpu

MANY_THREADS = 4


def usable_cores() -> int:
    """The processor cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads(setting: int) -> int:
    """Maximum CPU threads of a training or render process; a setting of 0 means all cores."""
    return setting or usable_cores()


def describe_device(device: str) -> str:
    """Description of a device, such as `NVIDIA H100` or `CPU, 2 threads`."""
    import torch  # here, so that a worker counts its threads without it

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(torch.device(device)))
    if device == "mps":
        return f"Apple GPU ({platform.machine()})"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def gpu_memory(device: str) -> int | None:
    """The memory of a CUDA device in bytes; else None. It takes no memory there, as a look at
    what is free would."""
    import torch

    if not device.startswith("cuda"):
        return None
    return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)


@dataclass(frozen=True)
class UnusedGpu:
    """A GPU that torch does not use: a sentence, and the command that changes it."""

    problem: str
    remedy: str


def unused_gpu(described: str) -> UnusedGpu | None:
    """The NVIDIA GPU of this machine if the device in use, as described, is a CPU; else None.

    Looks for the GPU and at the name of torch's build without importing torch.
    """
    if not described.startswith("CPU") or not _has_nvidia_gpu():
        return None
    torch = f"torch {version('torch')}"
    if torch.endswith("+cpu"):
        why = f"{torch} is a CPU build"
    else:
        why = f"{torch} cannot use it, as with a driver that is older than this build needs"
    return UnusedGpu(
        f"This machine has an NVIDIA GPU that is not used: {why}. To use it, stop Brushwork, run "
        "this command, and start again.",
        cuda_command(sys.executable),
    )


_has_nvidia_gpu = cache(has_nvidia_gpu)  # asked every few seconds


def identify_machine(device: str, thread_count: int) -> str:
    """The machine as far as the precision of images depends on it: `cuda`, `mps`, or the
    processor with its features, the threads and the version of torch, as a hash."""
    kind = device.partition(":")[0]
    if kind != "cpu":
        return kind
    facts = [describe_processor(), *_processor_flags(), str(thread_count), version("torch")]
    return f"cpu-{hashlib.sha256('|'.join(facts).encode()).hexdigest()[:24]}"


def describe_processor() -> str:
    """The name of the processor, such as `AMD EPYC 9354`."""
    return next(_read_cpuinfo("model name"), platform.processor() or platform.machine())


def _processor_flags() -> list[str]:
    """The features of the processor, where Linux lists them."""
    flags = next(_read_cpuinfo("flags"), "") or next(_read_cpuinfo("Features"), "")
    return sorted(flags.split())


def _read_cpuinfo(key: str) -> Iterator[str]:
    """The values of a key in /proc/cpuinfo, one for each core."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            yield value.strip()


def child_environment(thread_count: int) -> dict[str, str]:
    """The environment of a child process that imports torch: thread count, offline libraries.

    Secrets of the parent process are removed.
    """
    known = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return known | {
        "OMP_NUM_THREADS": str(thread_count),
        "MKL_NUM_THREADS": str(thread_count),
        **OFFLINE_LIBRARIES,
        "PYTHONPATH": python_path(),
    }
