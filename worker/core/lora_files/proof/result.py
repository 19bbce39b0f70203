"""Result of the proof of a file, in numbers, sentences and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pydantic.dataclasses
from pydantic import Field


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


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderResult:
    """The way one program reads the file."""

    name: str = Field(description="Short name of the program.")
    title: str = Field(description="Its name.")
    verdict: Verdict = Field(description="The result as a word.")
    sentence: str = Field(description="The result as a sentence.")
    needed: bool = Field(description="True if the file is only offered if this program reads it.")
    used: int = Field(description="Tensors that the program uses.")
    tensors: int = Field(description="Tensors in the file.")
    right: int = Field(description="Layers that are applied as trained.")
    wrong: int = Field(description="Layers that are applied at another strength.")
    missed: int = Field(description="Layers that are ignored although the program supports them.")
    beyond: int = Field(description="Layers that the program does not support.")
    modules: int = Field(description="Layers in the file.")
    strength: float = Field(description="Strength of the layers that are wrong.")
    worst_error: float = Field(description="Largest relative error of a layer.")
    worst_module: str = Field(description="The layer with the largest error.")
    seen_as: str = Field(description="The format the program takes it for.")


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
