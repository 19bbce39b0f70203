"""A run once more: the same settings on the same pictures as they were, whatever changed since."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.registry.base_models import service as base_models
from app.registry.datasets import service as datasets
from app.registry.datasets.models import Dataset, DatasetVersion
from app.registry.errors import InvalidInput
from app.registry.jobs import service as jobs
from app.registry.runs import service
from app.registry.runs.models import NOTICE, WARNING, Run
from app.registry.wording import plural


@dataclass(frozen=True)
class PictureChanges:
    """How one state of a dataset differs from an earlier one, in pictures."""

    added: int
    removed: int
    recaptioned: int

    def __bool__(self) -> bool:
        """True when anything differs."""
        return bool(self.added or self.removed or self.recaptioned)

    def __str__(self) -> str:
        """Such as “2 pictures added, 1 picture removed”."""
        words = (("added", self.added), ("removed", self.removed))
        parts = [f"{plural(number, 'picture')} {word}" for word, number in words if number]
        if self.recaptioned:
            parts.append(f"{plural(self.recaptioned, 'caption')} changed")
        return ", ".join(parts)


def picture_changes(earlier: dict[str, str], later: dict[str, str]) -> PictureChanges:
    """What changed between two states, each the captions by the hashes of the pictures."""
    both = earlier.keys() & later.keys()
    return PictureChanges(
        added=len(later.keys() - earlier.keys()),
        removed=len(earlier.keys() - later.keys()),
        recaptioned=sum(earlier[sha256] != later[sha256] for sha256 in both),
    )


def captions_of(version: DatasetVersion) -> dict[str, str]:
    """The captions of a pinned dataset by the hashes of its pictures."""
    return {item["sha256"]: item["caption"] for item in version.items}


def train_again(
    session: Session, run_id: int, *, adapter_id: int | None = None
) -> tuple[Run, list[str]]:
    """Queue the same training again, and say what differs from the first time, a sentence each.

    What it learns becomes a version of `adapter_id`. The pictures are those the first run had, also
    where the dataset changed or was deleted. Raises NotFound, or InvalidInput when the base is not
    ready or the settings are none any more.
    """
    old = service.get_run(session, run_id)
    base = base_models.get_base_model(session, old.base_model_id)
    base_models.require_ready(base)
    config = service.check_config(old.config)
    version = session.get_one(DatasetVersion, old.dataset_version_id)
    if version.image_count == 0:
        raise InvalidInput("The first run had no pictures, so there is nothing to learn from.")
    run = Run(
        name=old.name,
        dataset_id=old.dataset_id,
        dataset_version_id=old.dataset_version_id,
        base_model_id=base.key,
        preset=old.preset,
        trigger_word=old.trigger_word,
        config=config.model_dump(mode="json"),
        total_steps=config.steps,
        regularisation_version_id=old.regularisation_version_id,
        adapter_id=adapter_id,
    )
    jobs.enqueue(session, run)
    sentences = _differences(session, old, version)
    first = f"Run {old.key} once more, with its settings."
    jobs.record(session, Run, run.key, NOTICE, text=first)
    for text in sentences:
        jobs.record(session, Run, run.key, WARNING, text=text)
    return run, sentences


def _differences(session: Session, old: Run, version: DatasetVersion) -> list[str]:
    """What will not be as it was the first time."""
    found = []
    dataset = session.get_one(Dataset, old.dataset_id)
    pictures = plural(version.image_count, "picture")
    if dataset.deleted_at is not None:
        found.append(
            f"The dataset “{dataset.name}” was deleted since. This run learns from its {pictures} "
            "as they were the first time."
        )
    else:
        now = {image.sha256: image.caption for image in datasets.list_images(session, dataset.key)}
        if changes := picture_changes(captions_of(version), now):
            found.append(
                f"The dataset “{dataset.name}” changed since: {changes}. This run learns from the "
                f"{pictures} as they were the first time."
            )
    if old.parent_id is not None:
        found.append(
            f"The first time it went on from run {old.parent_id}. This run learns all of its "
            f"{old.total_steps:,} steps from the beginning."
        )
    return found
