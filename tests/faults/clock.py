"""A clock that jumps while processes run, by libfaketime (Debian: `libfaketime`)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
)


def library() -> str | None:
    """The library to preload; None where it is not installed."""
    return next((path for path in LIBRARIES if Path(path).is_file()), None)


class Clock:
    """The clock of all processes that are started with its environment; it is right at first."""

    def __init__(self, file: Path, preloaded: str) -> None:
        self._file = file
        self._preloaded = preloaded
        self.set(timedelta(0))

    def set(self, ahead: timedelta) -> None:
        """Show a time this far ahead of the true one (behind, where it is negative)."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{ahead.total_seconds():+.0f}\n")
        written.replace(self._file)

    def environment(self) -> dict[str, str]:
        """Variables that set this clock in a process; monotonic and file times stay true."""
        return {
            "LD_PRELOAD": self._preloaded,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # a jump is seen at once
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
            "NO_FAKE_STAT": "1",
        }
