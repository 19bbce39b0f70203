"""The output folder of a build: one build at a time, and enough free memory for it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.starter.errors import BuildError
from worker.core.memory import system_memory

CHECKPOINTS = "checkpoints"
LOCK_NAME = "build.lock"
GIB = 1 << 30


@contextmanager
def locked(out: Path) -> Iterator[Path]:
    """The folder of checkpoints inside `out`, held by this process alone.

    The kernel releases the lock however the process ends. Raises `BuildError` when another build
    holds it.
    """
    try:
        checkpoints = out / CHECKPOINTS
        checkpoints.mkdir(parents=True, exist_ok=True)
        handle = os.open(checkpoints / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BuildError(f"{out} cannot be written to: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 20).decode() or "unknown"
            raise BuildError(
                f"Another build (process {owner}) is writing to {out}. "
                "Wait until it has finished, stop it, or choose another folder with --out."
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield checkpoints
    finally:
        os.close(handle)


def require_memory(needed: int, *, free: int | None) -> None:
    """`BuildError` when fewer than `needed` bytes are free; None means that nobody can tell."""
    if free is not None and free < needed:
        raise BuildError(
            f"The build needs about {needed / GIB:.1f} GiB of free memory, and "
            f"{free / GIB:.1f} GiB are free. Close other programs, or try --tiny."
        )


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that new processes can use, within the limits of a container; None if unknown."""
    memory = system_memory(root)
    return None if memory is None else memory.free
