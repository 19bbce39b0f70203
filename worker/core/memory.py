"""The memory of a device, in all and free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KIB = 1024
# messages of a CPU; of CUDA and MPS outside torch's own OutOfMemoryError; of cuBLAS and cuDNN
OUT_OF_MEMORY_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "_alloc_failed",
)


@dataclass(frozen=True)
class Memory:
    """The memory of a device in bytes."""

    total: int
    free: int


def device_memory(device: str) -> Memory | None:
    """The memory of a torch device: a GPU's own, else the system's; None if unknown."""
    if not device.startswith("cuda"):
        return system_memory()
    import torch  # here, so that the build of the starter counts memory without it

    free, total = torch.cuda.mem_get_info(torch.device(device))
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Memory(total=total, free=free + unused)  # torch keeps what it freed


def system_memory(root: Path = Path("/")) -> Memory | None:
    """The memory that processes can use, within the limits of a container; None if unknown."""
    try:
        words = [line.split() for line in (root / "proc/meminfo").read_text().splitlines()]
        sizes = {name: int(size) * KIB for name, size, *_ in words}
        total, free = sizes["MemTotal:"], sizes["MemAvailable:"]
    except (OSError, ValueError, KeyError):
        return None
    group = root / "sys/fs/cgroup"
    try:
        limit, used = (int((group / f"memory.{kind}").read_text()) for kind in ("max", "current"))
    except (OSError, ValueError):  # no control groups, or no limit
        return Memory(total, free)
    # files that were read stay in memory until it is needed, and count as used
    return Memory(min(total, limit), min(free, limit - used + _reclaimable(group)))


def _reclaimable(group: Path) -> int:
    """The bytes of files that a control group holds and the kernel can drop."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error of torch or Python says that memory is full."""
    words = str(error).lower()
    is_own_kind = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_own_kind or any(sign in words for sign in OUT_OF_MEMORY_SIGNS)
