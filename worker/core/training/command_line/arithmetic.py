"""Keeps the arithmetic that a training chose, for the next start of the same command.

The number of threads and the precision are chosen by timing, so two starts can choose differently,
and on a CPU they affect the last bits of the result. A training that was killed before its first
checkpoint finds its choice in this file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from worker.core.atomic_write import write_atomically
from worker.core.training.config import TrainConfig
from worker.core.training.events import Arithmetic, Callbacks, Commands, Event

ARITHMETIC_FILE = "arithmetic.json"


class ArithmeticFile:
    """The file in a training's folder; valid for one config, base model and setting of threads.

    `fingerprint` is the base model's. `threads` is the number that was requested, 0 for all cores.
    """

    def __init__(self, out: Path, config: TrainConfig, *, fingerprint: str, threads: int) -> None:
        self._path = out / ARITHMETIC_FILE
        self._training = {
            "config": config.model_dump(mode="json"),
            "base_model": fingerprint,
            "threads": threads,
        }

    def load(self) -> Arithmetic | None:
        """The arithmetic of an earlier start of this training; None if there was none."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            config = TrainConfig.model_validate(content["training"]["config"])
            known = content["training"] | {"config": config.model_dump(mode="json")}
            if known == self._training:
                found = Arithmetic(**content["arithmetic"])
                return found if found.threads > 0 else None
        except (OSError, ValueError, KeyError, TypeError):
            pass  # chosen by timing, as at the first start
        return None

    def save(self, arithmetic: Arithmetic) -> None:
        """Write the arithmetic of this start."""
        content = {"training": self._training, "arithmetic": asdict(arithmetic)}
        write_atomically(self._path, json.dumps(content, indent=1).encode())


class SavedArithmetic:
    """Callbacks that save the arithmetic as soon as it is known, and pass every event on."""

    def __init__(self, callbacks: Callbacks, file: ArithmeticFile) -> None:
        self._callbacks = callbacks
        self._file = file

    def on_event(self, event: Event) -> None:
        """Save the arithmetic before the first step; other events are only passed on."""
        if isinstance(event, Arithmetic):
            self._file.save(event)
        self._callbacks.on_event(event)

    def poll(self) -> Commands:
        """The command that was requested."""
        return self._callbacks.poll()
