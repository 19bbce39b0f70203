"""Devices, threads and the environment of worker processes."""

from __future__ import annotations

import os
import platform
import sys

from app.registry.paths import ROOT

MANY_THREADS = 4
SECRETS = (
    "BRUSHWORK_PASSWORD",
    "BRUSHWORK_DATABASE_URL",
    "BRUSHWORK_BROKER_URL",
    "BRUSHWORK_STORAGE_URL",
    "BRUSHWORK_HUB_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)
"""Secrets removed from the environment of child processes."""


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


def child_environment(thread_count: int) -> dict[str, str]:
    """The environment of a child process that imports torch: thread count, offline libraries.

    Secrets of the parent process are removed.
    """
    root = str(ROOT)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    known = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return known | {
        "OMP_NUM_THREADS": str(thread_count),
        "MKL_NUM_THREADS": str(thread_count),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }
