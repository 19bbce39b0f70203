"""Memory and open files of a stack's processes during a soak."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from tests.faults.stacks import BROKER, IO, REGISTRY_SERVER, TRAIN, WEB, FaultyStack

WATCHED = (WEB, TRAIN, IO, REGISTRY_SERVER, BROKER)
"""Processes that live long and should not grow; render workers and trainers hold models."""

SAMPLE_SECONDS = 5.0
WARM_SECONDS = 300.0  # a shorter soak ends before every process has loaded what it needs
MOST_MEGABYTES = 150.0  # more in the last quarter of the soak than in the second one
MOST_FILES = 40
MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """A process at one time."""

    megabytes: float
    files: int


class Growth:
    """Looks at the processes every few seconds, until `stop`."""

    def __init__(self, stack: FaultyStack) -> None:
        self._stack = stack
        self._began = time.monotonic()
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        self._seconds = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._repeat)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._seconds = time.monotonic() - self._began
        self._stopping.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            for name in WATCHED:
                for pid in self._stack.named(name):
                    try:
                        process = psutil.Process(pid)
                        memory = process.memory_info().rss / MEGABYTE
                        self._samples[name].append(Sample(memory, process.num_fds()))
                    except psutil.Error:
                        continue  # it was killed meanwhile

    def as_json(self) -> dict[str, Any]:
        """Memory and files of each kind of process in the second and last quarter, and at most."""
        return {
            name: {
                "megabytes": [_quarter(sizes, 1), _quarter(sizes, 3), max(sizes)],
                "files": [_quarter(files, 1), _quarter(files, 3), max(files)],
            }
            for name, samples in self._samples.items()
            for sizes in [[round(one.megabytes, 1) for one in samples]]
            for files in [[one.files for one in samples]]
        }

    def broken(self) -> Iterable[str]:
        """A sentence for everything that grew too much, if the soak was long enough to judge."""
        if self._seconds < WARM_SECONDS:
            return
        for name, found in self.as_json().items():
            for what, most in (("megabytes", MOST_MEGABYTES), ("files", MOST_FILES)):
                first, last, _ = found[what]
                if last - first > most:
                    yield f"{name} grew from {first} to {last} {what}"

    def tables(self) -> Iterable[str]:
        """Lines for people."""
        yield (
            f"Growth (second quarter, last quarter, most; of {WARM_SECONDS:.0f} s or more, at most "
            f"{MOST_MEGABYTES:.0f} MB and {MOST_FILES} files are allowed):"
        )
        for name, found in self.as_json().items():
            megabytes = " -> ".join(f"{value:.0f}" for value in found["megabytes"])
            files = " -> ".join(f"{value:.0f}" for value in found["files"])
            yield f"  {name:<16}{megabytes} MB, {files} files"


def _quarter(values: Sequence[float], number: int) -> float:
    """The median of a quarter of the values, counted from 0."""
    length = len(values)
    return median(values[length * number // 4 : length * (number + 1) // 4] or values)
