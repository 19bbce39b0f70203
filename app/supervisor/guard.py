"""Runs one program in its own process group and kills that group if the supervisor dies.

    python -S -E guard.py [--nice N] [--pid-file FILE] -- PROGRAM ARGUMENT…

Standard input is the lifeline: the supervisor holds the other end of the pipe, and the kernel
closes it however the supervisor ends. The guard imports few standard modules, so it starts in
20 ms and takes 10 MB. It has one thread, so a process id is never signaled after it was reaped.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress

LIFE_LINE = 0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def descendants(root: int) -> list[int]:
    """Process ids below `root`, from /proc; empty on systems without it."""
    children: dict[int, list[int]] = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # "pid (any name) state parent …": the name may hold spaces and brackets
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill_group(group: int) -> None:
    """Kill every process of the group; an empty group is ignored."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def kill_all(group: int) -> None:
    """Kill the group and all descendants in other groups, such as trainers."""
    others = descendants(group)
    kill_group(group)
    for pid in others:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def exit_status(wait_status: int) -> int:
    """The child's exit code; 128 + signal number if a signal ended it, as in shells."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def spawn(command: list[str], environment: Mapping[str, str]) -> int:
    """Start `command` in a new group with empty standard input; return its process id."""
    return os.posix_spawnp(
        command[0],
        command,
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, LIFE_LINE, os.devnull, os.O_RDONLY, 0)],
        setpgroup=0,
        setsigmask=[],
    )


def guard(command: list[str], *, nice: int = 0, pid_file: str = "") -> int:
    """Run `command` until it ends or the lifeline closes; return its exit status."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *FORWARDED):
        signal.signal(number, lambda *_: None)  # the signal number arrives through the pipe
    if nice:
        os.nice(nice)
    try:
        child = spawn(command, os.environ)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}.", file=sys.stderr)
        return 127
    if pid_file:
        with open(pid_file, "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(f"{child}\n")
    while True:
        ready, _, _ = select.select([LIFE_LINE, wake_read], [], [])
        if LIFE_LINE in ready and not os.read(LIFE_LINE, 1):
            kill_all(child)
            os.waitpid(child, 0)
            return 128 + signal.SIGKILL
        for arrived in os.read(wake_read, 64) if wake_read in ready else b"":
            if arrived in FORWARDED:
                os.kill(child, arrived)
            elif arrived == signal.SIGCHLD:
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    kill_group(child)  # a restart must not meet leftover processes
                    return exit_status(status)


def main(arguments: list[str]) -> int:
    """Run `guard.py` with `arguments`; return the exit status."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    return guard(
        arguments[split + 1 :],
        nice=int(options.get("--nice", "0")),
        pid_file=options.get("--pid-file", ""),
    )


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
