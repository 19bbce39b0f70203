"""What the proof of a file found, in numbers, words and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """RIGHT: all of it, as strong as it was trained. LIMITED: all that the program can change.

    FOREIGN: the names are right, but the program cannot open the base. PARTLY, WRONG, UNREAD: so.
    """

    RIGHT = "right"
    LIMITED = "limited"
    FOREIGN = "foreign"
    PARTLY = "partly"
    WRONG = "wrong"
    UNREAD = "unread"

    @property
    def is_good(self) -> bool:
        """Whether nothing is the matter with the file."""
        return self in (Verdict.RIGHT, Verdict.LIMITED, Verdict.FOREIGN)


@dataclass(frozen=True, kw_only=True)
class LoaderResult:
    """What one program makes of a file.

    `used` of `tensors`; of `modules` so many come out right, at a wrong strength, or untouched
    though the program could change them (`missed`) or because it cannot (`beyond`). `strength` is
    the usual one of the wrong modules, else 1. `needed`: the file is offered only if this is good.
    """

    name: str
    title: str
    verdict: Verdict
    sentence: str
    needed: bool
    used: int
    tensors: int
    right: int
    wrong: int
    missed: int
    beyond: int
    modules: int
    strength: float
    worst_error: float
    worst_module: str
    seen_as: str


@dataclass(frozen=True, kw_only=True)
class ReadBack:
    """The file as our own reader gives it, against the registry's form.

    `worst_error` is the largest |dW found - dW| / |dW| of all modules; `limit` what is accepted.
    """

    tensors: int
    modules: int
    worst_error: float
    worst_module: str
    limit: float


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The file as the installed diffusers loaded it, module by module.

    `weights`: into the base's own weights; else into its layers without any memory for them.
    """

    diffusers: str
    modules: int
    worst_error: float
    worst_module: str
    weights: bool


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The same picture with the registry's adapter and with the file loaded by diffusers.

    `difference` is the largest of all pixels and channels, of 255; `effect` how far the adapter
    itself moves the picture.
    """

    prompt: str
    seed: int
    difference: int
    effect: int
    limit: int


@dataclass(frozen=True, kw_only=True)
class Proof:
    """All that was found about a file; `failures` are sentences, and empty when it may go out.

    `not_loaded` says why diffusers was not asked to load a file that it has to read, `not_drawn`
    why no picture could be compared on a base small enough to draw one.
    """

    format: str
    dtype: str
    family: str
    read_back: ReadBack
    loaders: list[LoaderResult]
    loaded: Loaded | None = None
    drawn: Drawn | None = None
    not_loaded: str = ""
    not_drawn: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the file may leave the registry."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """What the registry keeps beside the file."""
        return asdict(self) | {"passed": self.passed}
