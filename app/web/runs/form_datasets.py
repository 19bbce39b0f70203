"""The datasets in the form of a new run: rows with repeats that are added and removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.registry.datasets.service import DatasetSummary
from app.registry.runs.several_datasets import (
    MAX_DATASETS,
    dataset_field,
    place_of_field,
    repeats_field,
    whole_number,
)
from app.registry.tables.datasets import MAX_REPEATS
from app.web.form_reader import FormReader

FIELD = "datasets"  # the name of the buttons that add and remove one
ADD, REMOVE = "add", "remove-"
ONCE = "1"  # repeats of a new row


@dataclass(frozen=True)
class FormDataset:
    """A further dataset as the form sent it: its id and its repeats, as text."""

    dataset: str = ""
    repeats: str = ONCE


@dataclass(frozen=True)
class DatasetRow:
    """A dataset in the form; `summary` is None for one that is not chosen or gone."""

    place: int
    summary: DatasetSummary | None
    repeats: str
    is_new: bool = False

    @property
    def name(self) -> str:
        """The name of the field of the dataset."""
        return dataset_field(self.place)

    @property
    def repeats_name(self) -> str:
        """The name of the field of its repeats."""
        return repeats_field(self.place)

    @property
    def uses(self) -> int:
        """The uses of its images in an epoch; 1 for repeats that cannot be read."""
        number = whole_number(self.repeats)
        return number if number is not None and 1 <= number <= MAX_REPEATS else 1

    @property
    def image_count(self) -> int:
        """Number of images that are trained on."""
        return self.summary.trained_count if self.summary else 0


def read_further(form: FormReader) -> tuple[FormDataset, ...]:
    """The further datasets that a form sent, in the order of their numbers."""
    placed = (place_of_field(name) for name in form.texts)
    places = sorted(place for place, is_repeats in filter(None, placed) if not is_repeats)
    return tuple(
        FormDataset(form.text(dataset_field(place)), form.text(repeats_field(place)))
        for place in places
        if place > 1
    )


def change_rows(further: Sequence[FormDataset], button: str) -> tuple[FormDataset, ...]:
    """The further datasets after one of the buttons was chosen; the same for any other text."""
    rows = list(further)
    if button == ADD and len(rows) + 1 < MAX_DATASETS:
        rows.append(FormDataset())
    elif button.startswith(REMOVE):
        place = whole_number(button.removeprefix(REMOVE)) or 0
        del rows[max(place - 2, 0) : max(place - 1, 0)]
    return tuple(rows)


def dataset_rows(
    first: DatasetSummary | None,
    repeats: str,
    further: Sequence[FormDataset],
    summaries: Sequence[DatasetSummary | None],
) -> list[DatasetRow]:
    """All rows of the form, the first one first; a row without a dataset at the end is new."""
    rows = [DatasetRow(1, first, repeats)]
    for place, (row, summary) in enumerate(zip(further, summaries, strict=True), start=2):
        rows.append(DatasetRow(place, summary, row.repeats))
    if len(rows) > 1 and not further[-1].dataset:
        rows[-1] = replace(rows[-1], is_new=True)
    return rows
