"""Owner tokens: random, with the process that made them, so that its death can be proved.

The proof needs the same running kernel and the same process namespace: elsewhere a process id means
nothing, and a job is released only once its lease has stood still.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import sys
from functools import cache
from pathlib import Path

RANDOM_BYTES = 16
PLACE_DIGITS = 8
NAMESPACES = ("pid", "time")  # a start time is counted in the time namespace
STARTED_FIELD = 19  # of /proc/PID/stat after the name: start in clock ticks since boot
ENDED_STATES = frozenset("ZX")


def new_token() -> str:
    """A token that no other claim has, at most 64 characters."""
    mark = [_place(), str(os.getpid()), _start_of(os.getpid()) or ""]
    return ".".join([secrets.token_hex(RANDOM_BYTES), *(mark if all(mark) else ())])


def is_gone(token: str) -> bool:
    """True if the process that made this token is proved to have ended; False if unsure."""
    _, *mark = token.split(".")
    if len(mark) != 3 or mark[0] != _place():
        return False
    pid, started = int(mark[1]), mark[2]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it exists and belongs to somebody else, who may be its next holder
        pass
    found = _start_of(pid)
    return (found is not None and found != started) or _has_ended(pid)


@cache
def _place() -> str:
    """The running kernel and the namespaces of this process, as a short hash; empty if unknown."""
    if sys.platform != "linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        rooms = [str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES]
    except OSError:
        return ""
    parts = "\n".join([boot, socket.gethostname(), *rooms])
    return hashlib.sha256(parts.encode()).hexdigest()[:PLACE_DIGITS]


def _start_of(pid: int) -> str | None:
    """The start of a process in clock ticks since boot; None if it cannot be read."""
    fields = _stat_fields(pid)
    return fields[STARTED_FIELD] if fields else None


def _has_ended(pid: int) -> bool:
    """True for a process of which only the exit code is left: no thread of it runs."""
    fields = _stat_fields(pid)
    if not fields or fields[0] not in ENDED_STATES:
        return False
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return False


def _stat_fields(pid: int) -> list[str]:
    """The fields after the name, which may hold spaces and brackets; empty if unreadable."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
