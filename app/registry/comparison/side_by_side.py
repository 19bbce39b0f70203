"""The shared parts of comparisons: two things, their values in rows, and their samples in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, PlainSerializer, computed_field

from app.registry.api_records import api_record
from app.registry.runs.rerun import ImageChanges, captions_of, image_changes
from app.registry.runs.settings import Difference
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.runs import Sample

NONE = "none"
Thing = TypeVar("Thing")
Facts = Mapping[str, tuple[str, Any, str]]
"""Label, value and words by name."""
Columns = Mapping[str, tuple[str, Callable[[Any], str]]]
"""The label of a column, and the words for its value, by its name."""
PinnedByDataset = Mapping[int, tuple[str, DatasetVersion]]
"""The name and the pinned images of datasets, by id of the dataset."""


Shown = Annotated[
    Sample | None,
    PlainSerializer(lambda one: one and f"/media/{one.sha256}", return_type=str | None),
]
"""A sample, in an answer the address of its image; None where there is none."""


@api_record
class PromptPair:
    """The newest samples of two runs or versions for a prompt; null where there is none."""

    a: Shown = Field(serialization_alias="a_url", description="Address of the first one's PNG.")
    b: Shown = Field(serialization_alias="b_url", description="Address of the second one's PNG.")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def caption(self) -> str:
        """The prompt and seed; both if they differ."""
        texts = dict.fromkeys(f"{row.prompt}, seed {row.seed}" for row in (self.a, self.b) if row)
        return " / ".join(texts)


@dataclass(frozen=True, kw_only=True)
class SideBySide(Generic[Thing]):
    """Two things with the settings that differ and their samples; `notes` are sentences.

    `a_label` and `b_label` tell their images apart; `equal_count`: settings that are equal.
    """

    a: Thing
    b: Thing
    a_label: str
    b_label: str
    settings: list[Difference] = field(default_factory=list)
    equal_count: int = 0
    notes: list[str] = field(default_factory=list)
    pairs: list[PromptPair] = field(default_factory=list)


def column_facts(row: object, columns: Columns) -> dict[str, tuple[str, Any, str]]:
    """The values of these columns of a row."""
    values = {name: getattr(row, name) for name in columns}
    return {
        name: (label, values[name], words(values[name])) for name, (label, words) in columns.items()
    }


def figure(value: float) -> str:
    """A number with as many digits as it needs."""
    return f"{value:g}"


def side_by_side(a: Facts, b: Facts, *, missing: str = NONE) -> list[Difference]:
    """All values of both; `missing`: the words where one of them has no such value."""
    found = []
    for name in dict.fromkeys([*a, *b]):
        label = (a.get(name) or b[name])[0]
        (_, one, one_words), (_, two, two_words) = (
            side.get(name, (label, None, missing)) for side in (a, b)
        )
        found.append(Difference(name, label, one, two, one_words, two_words))
    return found


def differing(rows: Sequence[Difference]) -> list[Difference]:
    """The rows whose values differ."""
    return [row for row in rows if row.a != row.b]


def pair_samples(a: Sequence[Sample], b: Sequence[Sample]) -> list[PromptPair]:
    """Samples of the same prompt and seed, then the others by their place; none if one has none."""
    return list(_matched(a, b)) if a and b else []


def _matched(a: Sequence[Sample], b: Sequence[Sample]) -> Iterator[PromptPair]:
    rest = {row.prompt_index: row for row in b}
    partners = {row.prompt_index: rest.pop(_same_prompt(row, rest), None) for row in a}
    for row in a:
        yield PromptPair(row, partners[row.prompt_index] or rest.pop(row.prompt_index, None))
    for row in rest.values():
        yield PromptPair(None, row)


def _same_prompt(sample: Sample, others: Mapping[int, Sample]) -> int:
    """The place of the first other sample of the same prompt and seed; -1 if there is none."""
    key = (sample.prompt, sample.seed)
    return next((place for place, row in others.items() if (row.prompt, row.seed) == key), -1)


def dataset_changes(a: PinnedByDataset, b: PinnedByDataset) -> Iterator[tuple[str, ImageChanges]]:
    """The changes in the datasets of both, each with its name; no name if there is only one.

    Datasets whose images were deleted for good are left out.
    """
    several = len(a) > 1 or len(b) > 1
    for key in (key for key in a if key in b):
        (name, one), (_, two) = a[key], b[key]
        if one.id == two.id or not (one.is_kept and two.is_kept):
            continue
        if changes := image_changes(captions_of(one), captions_of(two)):
            yield (f"“{name}”" if several else ""), changes
