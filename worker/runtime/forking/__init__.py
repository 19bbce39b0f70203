"""Processes that begin as a fork of one that has imported what they need (Linux, CPU only)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

CLIENT = Path(__file__).with_name("client.py")


def fork_command(server: str, name: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command that runs `command`, a `python -m`, as a fork of the server at this socket.

    Without a server it runs the command itself. `name` is what `ps` shows.
    """
    return (sys.executable, "-S", "-E", str(CLIENT), server, name, "--", *command)
