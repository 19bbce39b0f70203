"""Run by forks in tests: says what it was given on standard output, then does what it is told."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def open_descriptors() -> list[int]:
    """The numbers of all open files, without the one that lists them."""
    found = sorted(int(one) for one in os.listdir("/proc/self/fd"))  # noqa: PTH208
    return [one for one in found if Path(f"/proc/self/fd/{one}").exists()]


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    told = {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "parent": os.getppid(),
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "environment": dict(os.environ),
        "preloaded": "wave" in sys.modules,
        "name": Path("/proc/self/comm").read_text().strip(),
        "descriptors": open_descriptors(),
    }
    print(json.dumps(told), flush=True)
    if what == "echo":
        print(sys.stdin.read(), file=sys.stderr)
        sys.exit(7)
    if what == "abort":
        os.abort()
    time.sleep(60)
