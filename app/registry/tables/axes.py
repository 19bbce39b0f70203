"""Axes of a grid as its row stores them: a setting and its values."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field


class AxisKind(StrEnum):
    """The setting that an axis varies."""

    WEIGHT = "weight"
    ADAPTER = "adapter"
    CHECKPOINT = "checkpoint"
    PROMPT = "prompt"
    SEED = "seed"
    STEPS = "steps"
    GUIDANCE = "guidance"
    SAMPLER = "sampler"

    @property
    def label(self) -> str:
        """Its name on pages."""
        return {"guidance": "Guidance scale"}.get(self.value, self.value.capitalize())

    @property
    def example(self) -> str:
        """How its values are written."""
        return {
            AxisKind.WEIGHT: "Such as 0.5, 0.75, 1 or 0.25 to 1.25 by 0.25.",
            AxisKind.ADAPTER: "Such as ink, chalk@best:0.8, none or search: watercolor.",
            AxisKind.CHECKPOINT: "Such as 12 for all of run 12, or 12: 100 to 500 by 100.",
            AxisKind.PROMPT: "One a line, or with alternatives, such as a {red|blue} castle.",
            AxisKind.SEED: "Such as 1 to 5.",
            AxisKind.STEPS: "Such as 10, 20, 30.",
            AxisKind.GUIDANCE: "Such as 2, 4, 7.",
            AxisKind.SAMPLER: "Such as Euler, DPM++ 2M Karras.",
        }[self]

    @property
    def is_of_row(self) -> bool:
        """True if it varies one of the adapters, given by its row."""
        return self in (AxisKind.WEIGHT, AxisKind.ADAPTER, AxisKind.CHECKPOINT)


class AxisValue(BaseModel, frozen=True):
    """A value with its label.

    `value`: a number, text, or of an adapter: adapter_id, version and weight; None: no adapter.
    Prompts of an evaluation have a seed of their own: prompt and seed. A candidate of a blind test
    is a whole stack with its settings and the form of its prompts.
    """

    label: str
    value: float | int | str | dict[str, Any] | None


class Axis(BaseModel, frozen=True):
    """A setting and its values; `row`: the adapter of the stack that it varies.

    `text`: the values as they were written. `run_id`: of checkpoints. `name`: of that adapter,
    empty if there is none, or another axis varies it.
    """

    kind: AxisKind
    text: str
    values: list[AxisValue] = Field(min_length=1)
    row: int = 0
    run_id: int | None = None
    name: str = ""

    @property
    def labels(self) -> Sequence[str]:
        """The labels of its values."""
        return [value.label for value in self.values]


def sizes_of(axes: Sequence[Axis]) -> tuple[int, int, int]:
    """Numbers of columns, rows and sheets."""
    columns, rows, sheets = (*(len(axis.values) for axis in axes), 1, 1, 1)[:3]
    return columns, rows, sheets
