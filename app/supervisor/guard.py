"""Runs one program in its own process group and ends that group when the supervisor dies.

    python -S -E guard.py [--nice N] [--pid-file FILE] -- PROGRAM ARGUMENT…

Standard input is the life line: the supervisor holds the other end of the pipe, and the kernel
closes it however the supervisor ends. Only the standard library, and little of it: a guard is up in
20 ms and holds 10 MB. One thread, so that a process id is never signalled after it was reaped.
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
            continue  # it ended while we looked
        children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill_group(group: int) -> None:
    """Kill every process of the group; none left is fine."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def kill_all(group: int) -> None:
    """Kill the group, and what below it made a group of its own (a trainer does)."""
    others = descendants(group)
    kill_group(group)
    for pid in others:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def exit_status(wait_status: int) -> int:
    """The child's exit code; 128 + signal when a signal ended it, as shells have it."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def spawn(command: list[str], environment: Mapping[str, str]) -> int:
    """Process id of `command`, started in a new group with nothing on its standard input."""
    return os.posix_spawnp(
        command[0],
        command,
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, LIFE_LINE, os.devnull, os.O_RDONLY, 0)],
        setpgroup=0,
        setsigmask=[],
    )


def guard(command: list[str], *, nice: int = 0, pid_file: str = "") -> int:
    """Exit status of `command`, which ends at the latest when the life line closes."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *FORWARDED):
        signal.signal(number, lambda *_: None)  # the number arrives through the pipe
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
                    kill_group(child)  # a restart must not meet what the old one left running
                    return exit_status(status)


def main(arguments: list[str]) -> int:
    """Exit status for `guard.py` called with `arguments`."""
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
