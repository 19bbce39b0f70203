"""Differences between two versions of an adapter: settings, data and files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.library.cards import samples_of_versions
from app.registry.comparison.side_by_side import (
    NONE,
    Columns,
    Facts,
    PromptPair,
    SideBySide,
    column_facts,
    dataset_changes,
    differing,
    figure,
    pair_samples,
    side_by_side,
)
from app.registry.datasets.used_datasets import version_datasets
from app.registry.runs.settings import Difference, config_differences
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.wording import count_text, duration, size_text
from worker.core.words import FileFormat, WeightDtype

NOT_KNOWN = "not known"


def _short_hash(sha256: str | None) -> str:
    return f"{sha256[:12]}…" if sha256 else NOT_KNOWN


FILE_COLUMNS: Columns = {
    "rank": ("Rank", str),
    "alpha": ("Alpha", figure),
    "usual_weight": ("Usual weight", figure),
    "steps": ("Steps", count_text),
    "trainable_parameters": ("Trained parameters", count_text),
    "size_bytes": ("Size in fp32", size_text),
    "sha256": ("SHA-256", _short_hash),
    "tensor_sha256": ("SHA-256 of the tensors", _short_hash),
    "training_seconds": ("Time", duration),
    "peak_memory_bytes": ("Peak memory", size_text),
    "code_version": ("Code", lambda value: value or NOT_KNOWN),
}


@dataclass(frozen=True, kw_only=True)
class TwoVersions(SideBySide[AdapterVersion]):
    """Two versions of an adapter; `data` and `file` have only values that differ.

    `used`: the number of the version in use.
    """

    adapter: Adapter
    used: int
    data: list[Difference]
    file: list[Difference]

    @property
    def knows_settings(self) -> bool:
        """True if the settings of both are known; imported files have none."""
        return bool(self.a.config and self.b.config)

    @property
    def same_weights(self) -> bool | None:
        """True if both have identical tensors; None if unknown."""
        if self.a.sha256 == self.b.sha256:
            return True
        if self.a.tensor_sha256 and self.b.tensor_sha256:
            return self.a.tensor_sha256 == self.b.tensor_sha256
        return None


def compare(
    session: Session, adapter: Adapter, a: int | str | None, b: int | str | None
) -> TwoVersions:
    """Compare two versions, given by numbers or aliases. Raises NotFound.

    The second defaults to `latest`, the first to the version before the second; without both, the
    two newest are compared.
    """
    newest = service.list_versions(session, adapter.key, limit=2)
    if a is None and b is None and len(newest) > 1:
        a, b = newest[1].version, newest[0].version
    second = service.get_version(session, adapter, b)
    first = (
        service.get_version(session, adapter, a)
        if a is not None
        else _version_before(session, second)
    )
    settings = _compare_settings(first, second)
    named = {row.name for row in settings}
    data = side_by_side(_data_facts(session, first), _data_facts(session, second))
    return TwoVersions(
        adapter=adapter,
        used=service.get_version(session, adapter).version,
        a=first,
        b=second,
        a_label=f"Version {first.version}",
        b_label=f"Version {second.version}",
        settings=settings,
        data=differing(data),
        file=[row for row in _compare_files(session, first, second) if row.name not in named],
        notes=[*_data_notes(session, first, second), *_settings_notes(first, second)],
        pairs=_compare_samples(session, first, second),
    )


def _compare_samples(session: Session, a: AdapterVersion, b: AdapterVersion) -> list[PromptPair]:
    """Samples of the same prompts and seeds; none if both are the same version."""
    found = samples_of_versions(session, [a.key, b.key]) if a.key != b.key else {}
    return pair_samples(found.get(a.key, []), found.get(b.key, []))


def _version_before(session: Session, version: AdapterVersion) -> AdapterVersion:
    earlier = service.list_versions(session, version.adapter_id, limit=1, before=version.version)
    return earlier[0] if earlier else version


def _compare_settings(a: AdapterVersion, b: AdapterVersion) -> list[Difference]:
    if not (a.config and b.config):
        return []
    return config_differences(_trained_config(a), _trained_config(b))


def _settings_notes(*versions: AdapterVersion) -> list[str]:
    return [
        f"The settings of version {version.version} are unknown, because it was imported."
        for version in versions
        if not version.config
    ]


def _trained_config(version: AdapterVersion) -> dict[str, Any]:
    """The settings, with the steps that were trained: fewer than planned if it was stopped."""
    steps = {} if version.steps is None else {"steps": version.steps}
    return version.config | steps


def _data_notes(session: Session, a: AdapterVersion, b: AdapterVersion) -> list[str]:
    """Sentences on the images that changed."""
    sides = [
        {one.dataset.key: (one.dataset.name, one.pinned) for one in version_datasets(session, row)}
        for row in (a, b)
    ]
    return [
        f"From version {a.version} to {b.version}{f' of {name}' if name else ''}: {changes}."
        for name, changes in dataset_changes(*sides)
    ]


def _data_facts(session: Session, version: AdapterVersion) -> Facts:
    found = version_datasets(session, version)
    base = service.version_base(session, version)
    name = ", ".join(one.label for one in found) or None
    count = sum(one.pinned.image_count for one in found) if found else None
    pinned = ", ".join(one.pinned.fingerprint for one in found) or None
    short = ", ".join(_short_hash(one.pinned.fingerprint) for one in found) or NOT_KNOWN
    mark = version.details.get("base_fingerprint") or (base.fingerprint if base else None)
    return {
        "dataset": ("Dataset", name, name or NOT_KNOWN),
        "pictures": ("Images", count, count_text(count)),
        "dataset_version": ("Dataset version", pinned, short),
        "base_model": ("Base model", base.name if base else None, base.name if base else NOT_KNOWN),
        "base_sha256": ("Base model hash", mark, _short_hash(mark)),
        "trigger_words": (
            "Trigger words",
            version.trigger_words,
            ", ".join(version.trigger_words) or NONE,
        ),
    }


def _compare_files(session: Session, a: AdapterVersion, b: AdapterVersion) -> list[Difference]:
    keys = [a.key, b.key]
    rows = session.exec(select(AdapterFile).where(col(AdapterFile.version_id).in_(keys))).all()
    sides = (_file_facts(version, rows) for version in (a, b))
    return differing(side_by_side(*sides, missing="not written yet"))


def _file_facts(version: AdapterVersion, files: Iterable[AdapterFile]) -> Facts:
    facts = column_facts(version, FILE_COLUMNS)
    for file in sorted(files, key=lambda row: (row.format, row.dtype)):
        if file.version_id == version.id:
            label = f"{FileFormat(file.format).label}, {WeightDtype(file.dtype).label}"
            words = f"{size_text(file.size_bytes)}, {_short_hash(file.sha256)}"
            facts[f"{file.format}_{WeightDtype(file.dtype).label}"] = (label, file.sha256, words)
    return facts
