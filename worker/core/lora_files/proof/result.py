"""Result of the proof of a file, in numbers, sentences and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """RIGHT: every module is read at the right strength. LIMITED: every supported module is.

    FOREIGN: the names are right, but the program cannot load the base. PARTLY: some modules are
    not read. WRONG: wrong strength or family. UNREAD: no module is read.
    """

    RIGHT = "right"
    LIMITED = "limited"
    FOREIGN = "foreign"
    PARTLY = "partly"
    WRONG = "wrong"
    UNREAD = "unread"

    @property
    def is_good(self) -> bool:
        """True if the file itself is correct."""
        return self in (Verdict.RIGHT, Verdict.LIMITED, Verdict.FOREIGN)


@dataclass(frozen=True, kw_only=True)
class LoaderResult:
    """The result of one program reading a file.

    `used` of all `tensors` are used. Of all `modules`, `right` have the right strength, `wrong`
    another one; `missed` are not read although the program supports their layers, `beyond` are of
    unsupported layers. `strength`: the most common one of the wrong modules, else 1. `needed`: the
    file is only offered if this verdict is good.
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
    """The file as read by our own reader, compared with the canonical adapter.

    `worst_error`: the largest |dW found - dW| / |dW| of all modules; `limit`: the largest accepted.
    """

    tensors: int
    modules: int
    worst_error: float
    worst_module: str
    limit: float


@dataclass(frozen=True, kw_only=True)
class DiffusersLoad:
    """The file as loaded by the installed diffusers, compared module by module.

    `weights`: merged into the base's own weights; else loaded into layers without weights.
    """

    diffusers: str
    modules: int
    worst_error: float
    worst_module: str
    weights: bool


@dataclass(frozen=True, kw_only=True)
class ImageComparison:
    """The same image generated with the canonical adapter and with the file loaded by diffusers.

    `difference`: the largest difference over all pixels and channels, of 255; `effect`: that of the
    images with and without the adapter.
    """

    prompt: str
    seed: int
    difference: int
    effect: int
    limit: int


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Everything found about a file; `failures` are sentences, and empty if it may be offered.

    `not_loaded`: why a file that diffusers must read was not loaded with it. `not_drawn`: why no
    images were compared although the base is small enough to generate them.
    """

    format: str
    dtype: str
    family: str
    read_back: ReadBack
    loaders: list[LoaderResult]
    loaded: DiffusersLoad | None = None
    drawn: ImageComparison | None = None
    not_loaded: str = ""
    not_drawn: str = ""
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True if the file may be offered as a download."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """The proof as JSON, as the registry stores it with the file."""
        return asdict(self) | {"passed": self.passed}
