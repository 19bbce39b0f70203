"""Uploaded images, verified and normalized in processes with limited resources.

Each image gives three things: the hash of the uploaded file (its identity: the same file twice is
one image), a **clean** image (upright 8-bit sRGB PNG at full size, without EXIF, GPS or trailing
data), and WebP thumbnails in two sizes. Training, downloads and pages use the clean image. The
uploaded bytes are not kept, so hidden content is never served, and all readers meet one safe
format.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from app.registry.errors import InvalidInput, StorageFullError
from app.registry.images import decoding
from app.registry.wording import size_text

MAX_FILE_BYTES = 60_000_000
# of a PNG, so that an export can be imported: as many pixels as are accepted, none compressible
MAX_PNG_BYTES = decoding.MAX_PIXELS * 4 * 102 // 100
PNG_START = b"\x89PNG\r\n\x1a\n"
TIMEOUT = 120.0  # wall seconds per image, in addition to the CPU limit of the process
PROCESSES = 2
PROGRAM = Path(decoding.__file__)
RENEW_AFTER = 1_000  # images; bounds memory leaks of the decoder

CRASHED = (
    "This image crashed the decoder, so it was refused. Open it in an editor, save it as PNG, and "
    "upload that."
)
TOO_SLOW = (
    "Decoding this image took too long, so it was refused. Open it in an editor, save it as PNG, "
    "and upload that."
)
# what the child needs to start; nothing it could give away: no passwords, no keys of buckets
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP")


class ImageRefused(InvalidInput, code="picture_refused"):
    """The file is not an accepted image; the message gives the reason."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image: size of the clean PNG in pixels, and the written files."""

    width: int
    height: int
    format: str  # of the uploaded file: JPEG, PNG or WEBP
    clean: Path
    thumbnail: Path
    small: Path | None  # None: the thumbnail is small enough
    note: str | None  # what was changed, for users
    measured: dict[str, Any]  # by the columns of `image_measure`

    @property
    def files(self) -> list[Path]:
        """The written files."""
        return [path for path in (self.clean, self.thumbnail, self.small) if path is not None]


def refuse_larger(size: int, start: bytes) -> None:
    """Raise ImageRefused if an image file of this size, which starts so, is too large."""
    most = MAX_PNG_BYTES if start.startswith(PNG_START) else MAX_FILE_BYTES
    if size > most:
        raise ImageRefused(
            f"The file is larger than {size_text(most)}, the limit for such an image."
        )


class ImageDecoder:
    """Decodes images in a few processes, which are started on demand; thread-safe.

    An image that crashes its process or exceeds the memory or time limit is refused, and the next
    one gets a new process. Call `close()` (or use `with`) when done.
    """

    def __init__(self, *, processes: int = PROCESSES, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._free_slots = threading.BoundedSemaphore(processes)
        self._idle: list[_DecoderProcess] = []
        self._lock = threading.Lock()
        self._closed = False

    def decode(self, source: Path, folder: Path) -> DecodedImage:
        """Check an image and write its clean PNG and WebP thumbnails into `folder`.

        The caller removes the files. Raises ImageRefused with the reason, and StorageFullError if
        the disk is full.
        """
        with source.open("rb") as file:
            refuse_larger(source.stat().st_size, file.read(len(PNG_START)))
        name = uuid.uuid4().hex
        clean, thumbnail = folder / f"{name}.png", folder / f"{name}.webp"
        small = folder / f"{name}-small.webp"
        paths = {"source": source, "clean": clean, "thumbnail": thumbnail, "small": small}
        request = {key: str(path) for key, path in paths.items()}
        try:
            with self._free_slots:
                answer = self._request_decoding(request)
            if answer.get("full"):
                raise StorageFullError(
                    "The disk is full, so this image was not stored. "
                    "Free some space, then try again."
                )
            if "refused" in answer:
                raise ImageRefused(answer["refused"])
        except BaseException:
            for path in (clean, thumbnail, small):
                path.unlink(missing_ok=True)
            raise
        return DecodedImage(
            width=answer["width"],
            height=answer["height"],
            format=answer["format"],
            clean=clean,
            thumbnail=thumbnail,
            small=small if small.exists() else None,
            note=answer["note"] or None,
            measured=answer["measured"],
        )

    def close(self) -> None:
        """End the processes; images that are being decoded are finished first."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request_decoding(self, request: dict[str, str]) -> dict[str, Any]:
        process = self._take_process()
        was_used = process.answered > 0
        try:
            answer = process.ask(request, timeout=self._timeout)
            if answer is None and was_used and not process.timed_out:
                # an earlier image may have crashed it, or it was killed while idle
                process.end()
                process = _DecoderProcess()
                answer = process.ask(request, timeout=self._timeout)
        except BaseException:
            process.end()
            raise
        if answer is None:
            process.end()
            raise ImageRefused(TOO_SLOW if process.timed_out else CRASHED)
        self._give_back(process)
        return answer

    def _take_process(self) -> _DecoderProcess:
        with self._lock:
            if self._closed:
                raise RuntimeError("This decoder is closed.")
            if self._idle:
                return self._idle.pop()
        return _DecoderProcess()

    def _give_back(self, process: _DecoderProcess) -> None:
        with self._lock:
            if not self._closed and process.answered < RENEW_AFTER:
                self._idle.append(process)
                return
        process.end()


class _DecoderProcess:
    """One running `decoding.py`; used by one thread at a time."""

    def __init__(self) -> None:
        self.answered = 0
        self.timed_out = False
        # started by its path with -P, so it imports neither our packages nor this folder
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: os.environ[key] for key in ENVIRONMENT if key in os.environ},
            encoding="utf-8",
        )

    def ask(self, request: dict[str, str], *, timeout: float) -> dict[str, Any] | None:
        """The answer; None if the process died or timed out."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = threading.Timer(timeout, self._overrun)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            return None
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            return None
        self.answered += 1
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _overrun(self) -> None:
        self.timed_out = True
        self._process.kill()

    def end(self) -> None:
        """Kill the process and wait for it."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # part of a request may be in the buffer
                pipe.close()
        self._process.wait()
