"""Checkpoints of a stage: an interrupted build, run again, goes on where it stopped."""

import hashlib
import json
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from tools.starter.errors import BuildError, BuildInterrupted
from tools.starter.pace import Journal, Pace, Progress

SAVE_SECONDS = 240.0


def never() -> bool:
    """The answer of a build that nobody interrupts."""
    return False


class Stateful(Protocol):
    """A module, an optimizer, an average: whatever a stage changes from step to step."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Checkpoint:
    """The file of one stage, with a fingerprint of everything that the stage depends on."""

    def __init__(self, folder: Path, stage: str, *inputs: Any) -> None:
        self.stage = stage
        self.path = folder / f"{stage}.pt"
        self.fingerprint = fingerprint(stage, *inputs)

    def read(self) -> dict[str, Any] | None:
        """The saved state, or None before the first save.

        Raises `BuildError` for a damaged file, and for one of another artwork or other settings.
        """
        try:
            content = torch.load(self.path, weights_only=True)
            same = content["fingerprint"] == self.fingerprint
            state: dict[str, Any] = content["state"]
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
            raise BuildError(
                f"{self.path} is damaged. Delete it to repeat the stage {self.stage!r}."
            ) from None
        if not same:
            raise BuildError(
                f"{self.path} comes from a build with other settings, artwork or start weights. "
                "Repeat the command of that build, or choose another folder with --out."
            )
        return state

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; a crash in between leaves the previous one."""
        unfinished = self.path.with_suffix(".new")
        torch.save({"fingerprint": self.fingerprint, "state": dict(state)}, unfinished)
        unfinished.replace(self.path)


class StageTraining:
    """The steps of a training stage, saved every few minutes and when they are interrupted."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        pace: Pace,
        parts: Mapping[str, Stateful],
        *,
        interrupted: Callable[[], bool] = never,
    ) -> None:
        self._interrupted = interrupted
        self.journal = Journal(checkpoint.stage)
        self._checkpoint = checkpoint
        self._parts = {**parts, "journal": self.journal}
        self._progress = Progress(pace)
        state = checkpoint.read()
        if state is not None:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            torch.set_rng_state(state["random"])
            self._progress = Progress(pace, step=state["step"], seconds=state["seconds"])
            if self._progress.share < 1:
                print(f"{checkpoint.stage}: goes on at {self._progress.share:.0%}", flush=True)

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return self._progress.step

    def shares(self) -> Iterator[float]:
        """The completed share of the stage, once for each step that is left.

        Raises `BuildInterrupted` between two steps, with the state saved.
        """
        if self._progress.share >= 1:
            return
        saved = time.monotonic()
        for share in self._progress:
            if self._interrupted():
                self._save()
                raise BuildInterrupted(self._checkpoint.stage, share)
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            yield share
        self._save()

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts.items()}
        progress = {"step": self._progress.step, "seconds": self._progress.seconds}
        self._checkpoint.write({**state, **progress, "random": torch.get_rng_state()})


def fingerprint(*inputs: Any) -> str:
    """A hash of settings, texts and tensors, equal for equal inputs in every process."""
    digest = hashlib.sha256()
    for value in inputs:
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            digest.update(json.dumps(plain, sort_keys=True, default=str).encode())
    return digest.hexdigest()
