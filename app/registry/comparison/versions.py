"""Differences between two versions of an adapter: settings, data and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select

from app.registry.adapters import service
from app.registry.adapters.library.cards import samples_of_versions
from app.registry.comparison.sample_pairs import PromptPair, pair_samples
from app.registry.datasets.trained_on import version_datasets
from app.registry.runs.rerun import captions_of, image_changes
from app.registry.runs.settings import Difference, config_differences
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.tables.datasets import DatasetVersion
from app.registry.wording import count_text, duration, size_text
from worker.core.words import FileFormat, WeightDtype

NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Comparison:
    """The differences between two versions of an adapter."""

    adapter: Adapter
    a: AdapterVersion
    b: AdapterVersion
    settings: list[Difference]
    data: list[Difference]
    file: list[Difference]
    notes: list[str]
    samples: list[PromptPair]

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
) -> Comparison:
    """Compare two versions, given by numbers or aliases. Raises NotFound.

    The second defaults to `latest`, the first to the version before the second.
    """
    second = service.get_version(session, adapter, b)
    first = (
        service.get_version(session, adapter, a)
        if a is not None
        else _version_before(session, second)
    )
    data, notes = _compare_data(session, first, second)
    settings = _compare_settings(first, second, notes)
    named = {row.name for row in settings}
    return Comparison(
        adapter=adapter,
        a=first,
        b=second,
        settings=settings,
        data=data,
        file=[row for row in _compare_files(session, first, second) if row.name not in named],
        notes=notes,
        samples=_compare_samples(session, first, second),
    )


def _compare_samples(session: Session, a: AdapterVersion, b: AdapterVersion) -> list[PromptPair]:
    """Samples of the same prompts and seeds; none if both are the same version."""
    if a.key == b.key:
        return []
    found = samples_of_versions(session, [a.key, b.key])
    return pair_samples(found.get(a.key, []), found.get(b.key, []))


def _version_before(session: Session, version: AdapterVersion) -> AdapterVersion:
    earlier = service.list_versions(session, version.adapter_id, limit=1, before=version.version)
    return earlier[0] if earlier else version


def _compare_settings(a: AdapterVersion, b: AdapterVersion, notes: list[str]) -> list[Difference]:
    for version in (a, b):
        if not version.config:
            notes.append(
                f"The settings of version {version.version} are unknown, because it was imported."
            )
    if not (a.config and b.config):
        return []
    return config_differences(_trained_config(a), _trained_config(b))


def _trained_config(version: AdapterVersion) -> dict[str, Any]:
    """The settings, with the steps that were trained: fewer than planned if it was stopped."""
    steps = {} if version.steps is None else {"steps": version.steps}
    return version.config | steps


def _compare_data(
    session: Session, a: AdapterVersion, b: AdapterVersion
) -> tuple[list[Difference], list[str]]:
    """Differences of dataset and base model, with sentences about the images."""
    sides = [_data_facts(session, version) for version in (a, b)]
    earlier, later = (
        {one.dataset.key: one for one in version_datasets(session, row)} for row in (a, b)
    )
    notes = []
    for key in (key for key in earlier if key in later):
        name, one, two = earlier[key].dataset.name, earlier[key].pinned, later[key].pinned
        if one.id == two.id or not (_has_items(one) and _has_items(two)):
            continue
        if changes := image_changes(captions_of(one), captions_of(two)):
            which = f" of “{name}”" if len(earlier) > 1 or len(later) > 1 else ""
            notes.append(f"From version {a.version} to {b.version}{which}: {changes}.")
    return _differing_values(*sides), notes


def _has_items(version: DatasetVersion) -> bool:
    """False if its images and captions were deleted for good."""
    return len(version.items) == version.image_count


def _data_facts(session: Session, version: AdapterVersion) -> dict[str, tuple[str, Any, str]]:
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
            ", ".join(version.trigger_words) or "none",
        ),
    }


def _compare_files(session: Session, a: AdapterVersion, b: AdapterVersion) -> list[Difference]:
    keys = [a.key, b.key]
    rows = session.exec(select(AdapterFile).where(col(AdapterFile.version_id).in_(keys))).all()
    return _differing_values(*(_file_facts(version, rows) for version in (a, b)))


def _file_facts(
    version: AdapterVersion, files: Iterable[AdapterFile]
) -> dict[str, tuple[str, Any, str]]:
    seconds, memory = version.training_seconds, version.peak_memory_bytes
    facts: dict[str, tuple[str, Any, str]] = {
        "rank": ("Rank", version.rank, str(version.rank)),
        "alpha": ("Alpha", version.alpha, f"{version.alpha:g}"),
        "usual_weight": ("Usual weight", version.usual_weight, f"{version.usual_weight:g}"),
        "steps": ("Steps", version.steps, count_text(version.steps)),
        "trainable_parameters": (
            "Trained parameters",
            version.trainable_parameters,
            count_text(version.trainable_parameters),
        ),
        "size_bytes": ("Size in fp32", version.size_bytes, size_text(version.size_bytes)),
        "sha256": ("SHA-256", version.sha256, _short_hash(version.sha256)),
        "tensor_sha256": (
            "SHA-256 of the tensors",
            version.tensor_sha256,
            _short_hash(version.tensor_sha256),
        ),
        "training_seconds": ("Time", seconds, duration(seconds)),
        "peak_memory_bytes": ("Peak memory", memory, size_text(memory)),
        "code_version": ("Code", version.code_version, version.code_version or NOT_KNOWN),
    }
    for file in sorted(files, key=lambda row: (row.format, row.dtype)):
        if file.version_id == version.id:
            label = f"{FileFormat(file.format).label}, {WeightDtype(file.dtype).label}"
            words = f"{size_text(file.size_bytes)}, {_short_hash(file.sha256)}"
            facts[f"{file.format}_{WeightDtype(file.dtype).label}"] = (label, file.sha256, words)
    return facts


def _differing_values(
    a: Mapping[str, tuple[str, Any, str]], b: Mapping[str, tuple[str, Any, str]]
) -> list[Difference]:
    found = []
    for name in dict.fromkeys([*a, *b]):
        label = (a.get(name) or b[name])[0]
        (_, one, one_words), (_, two, two_words) = (
            side.get(name, (label, None, "not written yet")) for side in (a, b)
        )
        if one != two:
            found.append(Difference(name, label, one, two, one_words, two_words))
    return found


def _short_hash(sha256: str | None) -> str:
    return f"{sha256[:12]}…" if sha256 else NOT_KNOWN
