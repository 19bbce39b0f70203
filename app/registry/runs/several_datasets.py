"""The datasets that are asked for in a run, each with its repeats: checked, then written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session, func, select

from app.registry.datasets import service as datasets
from app.registry.datasets.service import DatasetSummary
from app.registry.errors import NotFound
from app.registry.tables.datasets import MAX_REPEATS, TRIGGER_LENGTH, Image, is_trained
from app.registry.tables.runs import Run, RunDataset
from app.registry.validation import too_long
from worker.core.training.data.epochs import MAX_REPEATS as MAX_USES

MAX_DATASETS = 20  # of a run
NO_DATASET = "This dataset does not exist; it may have been deleted. Choose another."
NOT_CHOSEN = "Choose a dataset, or remove this one."
_FIELD = re.compile(r"dataset_(?P<what>id|repeats)(?:_(?P<place>\d{1,3}))?", re.ASCII)
WRONG_REPEATS = f"Enter a whole number of repeats from 1 to {MAX_REPEATS}."


@dataclass(frozen=True)
class DatasetWish:
    """A dataset that is asked for; `repeats` is checked with the rest, so it may be anything."""

    dataset_id: int
    repeats: object = 1


@dataclass(frozen=True)
class CheckedDataset:
    """A dataset that a run can be trained on; `place`: 1 for the first one."""

    place: int
    summary: DatasetSummary
    repeats: int


@dataclass(frozen=True)
class NewRunDataset:
    """A pinned dataset of a new run."""

    dataset_id: int
    version_id: int
    repeats: int


def dataset_field(place: int) -> str:
    """The name of the field of the dataset at this place, from 1."""
    return "dataset_id" if place == 1 else f"dataset_id_{place}"


def repeats_field(place: int) -> str:
    """The name of the field of its repeats."""
    return "dataset_repeats" if place == 1 else f"dataset_repeats_{place}"


def place_of_field(name: str) -> tuple[int, bool] | None:
    """The place that a field is about, and whether it is that of the repeats; None for others."""
    found = _FIELD.fullmatch(name)
    return (int(found["place"] or 1), found["what"] == "repeats") if found else None


def check_datasets(
    session: Session, wishes: Sequence[DatasetWish], fields: dict[str, str]
) -> list[CheckedDataset]:
    """The datasets that exist; a sentence in `fields` for everything that is wrong with one."""
    if len(wishes) > MAX_DATASETS:
        fields["datasets"] = (
            f"These are {len(wishes)} datasets; a run takes at most {MAX_DATASETS}. Put images "
            "together into one dataset: move or copy them on its page."
        )
        return []
    twice = Counter(wish.dataset_id for wish in wishes)
    found: list[CheckedDataset] = []
    for place, wish in enumerate(wishes, start=1):
        name = dataset_field(place)
        if place > 1 and wish.dataset_id <= 0:
            fields[name] = NOT_CHOSEN
            continue
        summary = _get(session, wish.dataset_id)
        if summary is None:
            fields[name] = NO_DATASET
            continue
        earlier = [one.summary.dataset.key for one in found]
        if twice[wish.dataset_id] > 1 and wish.dataset_id in earlier:
            fields[name] = (
                f"“{summary.dataset.name}” is in this run already. Choose another dataset, or give "
                "it more repeats."
            )
        elif summary.trained_count == 0:
            fields[name] = nothing_to_train_on(summary)
        repeats = whole_number(wish.repeats)
        if repeats is None or not 1 <= repeats <= MAX_REPEATS:
            fields[repeats_field(place)] = WRONG_REPEATS
            repeats = 1
        elif repeats > 1 and (problem := _too_many_uses(session, summary, repeats)):
            fields[repeats_field(place)] = problem
        found.append(CheckedDataset(place, summary, repeats))
    return found


def _get(session: Session, dataset_id: int) -> DatasetSummary | None:
    try:
        dataset = datasets.get_dataset(session, dataset_id)
    except NotFound:
        return None
    return datasets.summary(session, dataset)


def whole_number(value: object) -> int | None:
    """The number; None for text that is not a whole number, or has too many digits for one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return None


def _too_many_uses(session: Session, summary: DatasetSummary, repeats: int) -> str:
    """The sentence if an image would be used too often in an epoch; empty if not."""
    most = select(func.max(Image.repeats)).where(is_trained(summary.dataset.key))
    own = session.exec(most).one() or 1
    if own * repeats <= MAX_USES:
        return ""
    return (
        f"An image of “{summary.dataset.name}” has {own} repeats of its own; times {repeats}, that "
        f"is more than {MAX_USES:,} in an epoch. Enter at most {MAX_USES // own}."
    )


def nothing_to_train_on(summary: DatasetSummary) -> str:
    """Why a dataset cannot be trained on."""
    name = summary.dataset.name
    if summary.image_count:
        return f"All images of “{name}” are set aside. Take some of them back, then train."
    return f"“{name}” has no images yet. Add some, then train."


def trigger_word_problem(word: str) -> str:
    """Why this is not a trigger word; empty if it is one, or nothing."""
    if len(word) > TRIGGER_LENGTH:
        return too_long(word, TRIGGER_LENGTH)
    if "," in word or "\n" in word:
        return "Leave the comma out: prompts are split at commas."
    return ""


def add_further(session: Session, run: Run, further: Iterable[NewRunDataset]) -> None:
    """Write the datasets of a new run from the second one on."""
    for place, one in enumerate(further, start=2):
        session.add(
            RunDataset(
                run_id=run.key,
                place=place,
                dataset_id=one.dataset_id,
                dataset_version_id=one.version_id,
                repeats=one.repeats,
            )
        )
    session.flush()
