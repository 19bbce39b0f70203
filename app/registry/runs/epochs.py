"""Epochs of runs: how often the images of a run were used at a step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets.used_datasets import UsedDataset, used_of_runs
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.runs import Run
from worker.core.training.data.epochs import held_out_count, steps_per_epoch

DIGITS = 4


@dataclass(frozen=True)
class Epochs:
    """The epochs of one run; `steps` is the length of one, None if it is not known.

    They count from the same beginning as steps: for a run that continues another one, from that of
    the other, as if all steps had used these images.
    """

    steps: float | None

    def at(self, step: int) -> float | None:
        """Epochs done after this many steps."""
        return round(step / self.steps, DIGITS) if self.steps else None


def run_epochs(session: Session, run: Run) -> Epochs:
    """The epochs of a run."""
    return epochs_of_runs(session, [run])[run.key]


def epochs_of_runs(
    session: Session,
    runs: Sequence[Run],
    *,
    used: Mapping[int, Sequence[UsedDataset]] | None = None,
) -> dict[int, Epochs]:
    """The epochs of these runs, by their ids; `used`: their datasets, if they are known."""
    used = used_of_runs(session, runs) if used is None else used
    pinned = {one.version_id for row in used.values() for one in row}
    versions = _list_repeats(session, pinned)
    found = {}
    for run in runs:
        figures = [(*versions.get(one.version_id, (0, 0)), one.repeats) for one in used[run.key]]
        images = sum(count for count, _, _ in figures)
        found[run.key] = _epochs_of(run, images, sum(uses * by for _, uses, by in figures))
    return found


def _epochs_of(run: Run, images: int, uses: int) -> Epochs:
    """The epochs of a run on so many images, whose repeats add up to `uses`.

    Which images a validation split holds out is not known here: their repeats count as average.
    """
    numbers = {
        name: run.config.get(name, default)
        for name, default in (
            ("batch_size", 1),
            ("gradient_accumulation", 1),
            ("validation_share", 0.0),
        )
    }
    if not images or not all(isinstance(value, int | float) for value in numbers.values()):
        return Epochs(None)
    trained = images - held_out_count(numbers["validation_share"], images)
    images_per_step = numbers["batch_size"] * numbers["gradient_accumulation"]
    if trained <= 0 or images_per_step <= 0:
        return Epochs(None)
    steps = steps_per_epoch(
        uses * trained / images,
        images_per_step=images_per_step,
        has_regularization=run.regularization_version_id is not None,
    )
    return Epochs(round(steps, DIGITS))


def _list_repeats(session: Session, version_ids: Collection[int]) -> dict[int, tuple[int, int]]:
    """The number of images of pinned datasets, and the sum of their repeats, by id.

    The items are read only where an image repeats: they hold every caption.
    """
    items = col(DatasetVersion.items)
    repeats = sa.cast(items, sa.Text).contains('"repeats"')
    repeated = sa.case((repeats, items), else_=sa.null())
    query = select(col(DatasetVersion.id), DatasetVersion.image_count, repeated)
    found = session.exec(query.where(col(DatasetVersion.id).in_(version_ids)))
    return {key or 0: (count, _sum_repeats(listed, count)) for key, count, listed in found}


def _sum_repeats(items: list[dict[str, Any]] | None, count: int) -> int:
    return count if items is None else sum(int(item.get("repeats", 1)) for item in items)
