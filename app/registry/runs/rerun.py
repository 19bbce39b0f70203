"""Rerun a training with the same settings on the same images, even if the dataset changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.registry.adapters import service as adapters
from app.registry.base_models import service as base_models
from app.registry.datasets import pinned
from app.registry.datasets.used_datasets import UsedDataset, image_total, used_datasets
from app.registry.errors import InvalidInput
from app.registry.jobs import rights
from app.registry.jobs import service as jobs
from app.registry.runs import requests, service
from app.registry.runs.several_datasets import NewRunDataset, add_further
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.owned import may_edit, principal_of
from app.registry.tables.runs import NOTICE, WARNING, Run
from app.registry.wording import plural

SHARED = {
    "dataset_id",
    "dataset_version_id",
    "dataset_repeats",
    "base_model_id",
    "preset",
    "own_preset",
    "trigger_word",
    "regularization_version_id",
}
"""The columns of a run that one like it has too."""


@dataclass(frozen=True)
class ImageChanges:
    """Difference between two states of a dataset, in images."""

    added: int
    removed: int
    recaptioned: int

    def __bool__(self) -> bool:
        """True when anything differs."""
        return bool(self.added or self.removed or self.recaptioned)

    def __str__(self) -> str:
        """Such as “2 images added, 1 image removed”."""
        words = (("added", self.added), ("removed", self.removed))
        parts = [f"{plural(number, 'image')} {word}" for word, number in words if number]
        if self.recaptioned:
            parts.append(f"{plural(self.recaptioned, 'caption')} changed")
        return ", ".join(parts)


def require_run(adapter: Adapter, version: AdapterVersion) -> int:
    """The id of the run that trained a version. Raises InvalidInput if it was imported."""
    if version.run_id is None:
        sentence = (
            f"Version {version.version} of “{adapter.name}” was not trained here, so it cannot be "
            "trained again. Choose a trained version."
        )
        raise InvalidInput(sentence)
    return version.run_id


def image_changes(earlier: dict[str, Any], later: dict[str, Any]) -> ImageChanges:
    """Difference between two states, each given as captions by image hash."""
    both = earlier.keys() & later.keys()
    return ImageChanges(
        added=len(later.keys() - earlier.keys()),
        removed=len(earlier.keys() - later.keys()),
        recaptioned=sum(earlier[sha256] != later[sha256] for sha256 in both),
    )


def captions_of(version: DatasetVersion) -> dict[str, Any]:
    """The captions of a pinned dataset, by image hash: a text, or several with their shares."""
    return _captions_by_hash(version.items)


def _captions_by_hash(items: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {item["sha256"]: item.get("captions") or item["caption"] for item in items}


def changes_since(session: Session, version: DatasetVersion) -> ImageChanges:
    """The changes in a dataset since this version of it was pinned."""
    now = pinned.current_items(session, version.dataset_id)
    return image_changes(captions_of(version), _captions_by_hash(now))


def queue_like(session: Session, old: Run, **values: Any) -> Run:
    """Queue a run on the images and the base model of another; `values`: what it has of its own."""
    run = jobs.enqueue(session, Run(**old.model_dump(include=SHARED), **values))
    used = used_datasets(session, old)[1:]
    add_further(session, run, [NewRunDataset(one.id, one.version_id, one.repeats) for one in used])
    return run


def train_again(
    session: Session, run_id: int, *, adapter_id: int | None = None
) -> tuple[Run, list[str]]:
    """Queue the same training again; return the run and one sentence per difference.

    The result becomes a version of `adapter_id`, if the person may change it; else a new adapter.
    The images are those of the first run, even if the dataset changed or was deleted since. Raises
    NotFound, or InvalidInput when the base model is not ready or the settings are no longer valid.
    """
    old = service.get_run(session, run_id, lock=True)
    base = base_models.get_base_model(session, old.base_model_id)
    base_models.require_ready(base)
    config = requests.check_config(old.config, family=base.family)
    used = used_datasets(session, old)
    if image_total(used) == 0:
        raise InvalidInput("The first run had no images, so there is nothing to train on.")
    adapter = None if adapter_id is None else adapters.get_adapter(session, adapter_id)
    person = principal_of(session)
    if adapter is not None and person is not None and not may_edit(session, person, adapter):
        adapter = None
    run = queue_like(
        session,
        old,
        name=old.name,
        config=config.model_dump(mode="json"),
        total_steps=config.steps,
        changes=old.changes,
        adapter_id=adapter.key if adapter else None,
    )
    if adapter is not None:
        rights.require_addition(session, run, adapter, "adapter_id")
    sentences = _list_differences(session, old, used)
    first = f"Repeats run {old.key} with the same settings."
    if old.changes:
        first += " What changed while it trained changes at the same steps."
    jobs.record(session, Run, run.key, NOTICE, text=first)
    for text in sentences:
        jobs.record(session, Run, run.key, WARNING, text=text)
    return run, sentences


def _list_differences(session: Session, old: Run, used: Sequence[UsedDataset]) -> list[str]:
    """Sentences on what differs from the first run."""
    found = []
    for one in used:
        images = plural(one.image_count, "image")
        if one.deleted_at is not None:
            found.append(
                f"The dataset “{one.name}” was deleted since. This run trains on its {images} as "
                "they were in the first run."
            )
            continue
        version = session.get_one(DatasetVersion, one.version_id)
        if changes := changes_since(session, version):
            found.append(
                f"The dataset “{one.name}” changed since: {changes}. This run trains on the "
                f"{images} as they were in the first run."
            )
    if old.parent_id is not None:
        found.append(
            f"The first run continued run {old.parent_id}. This run trains all of its "
            f"{old.total_steps:,} steps from the beginning."
        )
    return found
