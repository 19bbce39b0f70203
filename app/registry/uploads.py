"""Uploaded files, from a browser or from this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class UploadedFile:
    """An uploaded file: its name, which is never trusted, and its content."""

    filename: str
    content: Path | IO[bytes]

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The content from its start; only files opened here are closed."""
        if isinstance(self.content, Path):
            with self.content.open("rb") as opened:
                yield opened
        else:
            self.content.seek(0)
            yield self.content
