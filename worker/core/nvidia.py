"""Finds an NVIDIA GPU without torch, which may be a build that cannot use one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")
DEVICES = Path("/dev")
WSL = "/usr/lib/wsl/lib"  # not on PATH in every shell
ANSWER_SECONDS = 10.0
CUDA_INDEX = "https://download.pytorch.org/whl/cu128"
"""Package index of CUDA builds of torch, for drivers of the last years; the image uses it too."""


def has_nvidia_gpu() -> bool:
    """True if the NVIDIA driver of this machine, or of this container, has a GPU."""
    # A container sees the driver of its host in /proc, and in /dev only what was given to it.
    if DRIVER.is_dir() and any(DRIVER.iterdir()) and any(DEVICES.glob("nvidia[0-9]*")):
        return True
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=WSL)
    if program is None:
        return False
    try:
        listed = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return False  # left over from a driver that was removed
    return listed.returncode == 0 and "GPU" in listed.stdout


def cuda_command(python: str | Path) -> str:
    """The command that replaces the torch of this Python by a CUDA build."""
    pip = f"{python} -m pip"
    return f"{pip} uninstall -y torch && {pip} install torch --index-url {CUDA_INDEX}"
