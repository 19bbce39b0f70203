"""What a dataset is and has: `list`, `show`, `check` and `compare`, each as text or as JSON."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.registry.api_records import as_answer
from app.registry.comparison.datasets import (
    ChangeKind,
    ItemChange,
    VersionChanges,
    compare_versions,
)
from app.registry.datasets import service
from app.registry.datasets.checks.findings import Report
from app.registry.datasets.checks.service import check_dataset
from app.registry.datasets.filters import Show
from app.registry.datasets.listing.image_search import count_filters
from app.registry.datasets.listing.statistics import DatasetStatistics, read_statistics
from app.registry.datasets.service import DatasetSummary
from app.registry.datasets.transfer.versions import VersionSummary, list_versions
from app.registry.state import AppState
from app.registry.tables.datasets import Image
from app.registry.wording import plural

WORDS_SHOWN = 12
LONGEST = 40  # characters of a word that are shown
IMAGE_FACTS = {
    "id",
    "filename",
    "sha256",
    "width",
    "height",
    "caption",
    "repeats",
    "never_flip",
    "set_aside",
    "focus_x",
    "focus_y",
}
OPEN = 3
"""The exit code while there are findings that are not mere advice."""
MARKS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}


@dataclass(frozen=True)
class Shown:
    """The printed facts of a dataset; `filters`: the number of images that each one finds."""

    summary: DatasetSummary
    figures: DatasetStatistics
    filters: Mapping[Show, int]
    images: list[Image]
    versions: list[VersionSummary]


def run_list(arguments: Namespace, state: AppState) -> int:
    """Print the datasets, newest first."""
    words = arguments.words or ""
    with state.database.read() as session:
        rows = service.list_datasets(session, q=words)
    none = "No dataset matches." if words else "There are no datasets yet."
    _say(arguments, [_facts(row) for row in rows], [_line(row) for row in rows] or [none])
    return 0


def _facts(row: DatasetSummary) -> dict[str, Any]:
    """The JSON that `--json` prints for a dataset."""
    return {
        "id": row.dataset.key,
        "slug": row.dataset.slug,
        "name": row.dataset.name,
        "trigger_word": row.dataset.trigger_word,
        "image_count": row.image_count,
        "captioned_count": row.captioned_count,
        "smallest_side": row.smallest_side,
        "run_count": row.run_count,
    }


def _line(row: DatasetSummary) -> str:
    captioned = f"{row.captioned_count} of {row.image_count} captioned"
    return (
        f"{row.dataset.slug:<32} {captioned:<24} {row.dataset.trigger_word or '-':<24} "
        f"{row.dataset.name}"
    )


def run_show(arguments: Namespace, state: AppState) -> int:
    """Print a dataset. Raises NotFound."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        shown = Shown(
            service.summary(session, dataset),
            read_statistics(session, dataset),
            count_filters(session, dataset)[0],
            service.list_images(session, dataset.key),
            list_versions(session, dataset.key),
        )
    lines = (*_figures(shown), *_images(shown.images), *_versions(shown.versions))
    _say(arguments, _shown_json(shown), lines)
    return 0


def _shown_json(shown: Shown) -> dict[str, Any]:
    return _facts(shown.summary) | {
        "statistics": asdict(shown.figures),
        "filters": {kind.value: count for kind, count in shown.filters.items()},
        "images": [image.model_dump(include=IMAGE_FACTS) for image in shown.images],
        "versions": [
            asdict(version) | {"created_at": version.created_at.isoformat()}
            for version in shown.versions
        ],
    }


def _figures(shown: Shown) -> Iterator[str]:
    dataset, figures = shown.summary.dataset, shown.figures
    yield dataset.name
    word = "no trigger word"
    if dataset.trigger_word:
        lacking = shown.filters[Show.NO_TRIGGER]
        missing = f", missing in {plural(lacking, 'image')}" if lacking else ""
        word = f"trigger word {dataset.trigger_word}{missing}"
    yield f"{plural(figures.images, 'image')}, {figures.captioned:,} captioned; {word}"
    for title, counted in (("Words", figures.words), ("Tags", figures.tags)):
        if counted:
            most = ", ".join(
                f"{one.word[:LONGEST]} {one.images:,}" for one in counted[:WORDS_SHOWN]
            )
            yield f"{title}: {most}"
    others = [kind for kind in Show if kind is not Show.NO_TRIGGER and shown.filters.get(kind)]
    if others:
        counts = ", ".join(f"{kind.value} {shown.filters[kind]:,}" for kind in others)
        yield f"Filters: {counts}"


def _images(images: Sequence[Image]) -> Iterator[str]:
    if images:
        yield "Images:"
    for image in images:
        rules = f", {image.repeats} repeats" if image.repeats > 1 else ""
        rules += ", never flipped" if image.never_flip else ""
        rules += ", set aside" if image.set_aside else ""
        size = f"{image.width}x{image.height}"
        caption = image.caption or "(no caption)"
        yield f"  {image.key:<6} {image.filename:<32} {size:<11} {caption}{rules}"


def _versions(versions: Sequence[VersionSummary]) -> Iterator[str]:
    if versions:
        yield "Versions:"
    for version in versions:
        used = [f"run {run.id} “{run.name}”" for run in version.runs]
        used += [f"adapter {adapter.slug} v{adapter.version}" for adapter in version.adapters]
        made = f"{version.created_at:%Y-%m-%d %H:%M}"
        count = plural(version.image_count, "image")
        yield f"  {version.id:<6} {made}  {count:<12} {', '.join(used) or 'not used now'}"


def run_check(arguments: Namespace, state: AppState) -> int:
    """Print the findings; return 3 while some are open, else 0."""
    with state.database.read() as session:
        report = check_dataset(session, service.dataset_by_slug(session, arguments.slug))
    _say(arguments, as_answer(report), _report_lines(report))
    return OPEN if report.open else 0


def _report_lines(report: Report) -> Iterator[str]:
    images, captions = plural(report.image_count, "image"), plural(report.caption_count, "caption")
    yield f"{images} and {captions} checked, {plural(len(report.open), 'open finding')}."
    for found in report.findings:
        yield f"{found.level + ':':<9}{found.title}. {found.reason}"
        yield from (f"{'':<9}{line}" for line in found.details)
    yield from report.rest


def run_compare(arguments: Namespace, state: AppState) -> int:
    """Print the differences. Raises NotFound, and Conflict for a version without images."""
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        found = compare_versions(session, dataset.key, arguments.before, arguments.after)
    _say(arguments, _changes_json(found), _changes_lines(found))
    return 0


def _changes_lines(found: VersionChanges) -> Iterator[str]:
    counts = ", ".join(f"{found.count(kind):,} {kind}" for kind in ChangeKind)
    yield f"{counts}, {found.same:,} the same"
    for change in found.changes:
        yield from _change_lines(change)


def _change_lines(change: ItemChange) -> Iterator[str]:
    yield f"{MARKS[change.kind]} {change.filename}"
    if change.kind is not ChangeKind.CHANGED:
        return
    for caption in change.captions:
        yield f"    - {caption.kind}: {caption.before or '(none)'}"
        yield f"    + {caption.kind}: {caption.after or '(none)'}"
    yield from (f"    {fact}" for fact in change.facts)


def _changes_json(found: VersionChanges) -> dict[str, object]:
    """The same fields as `GET /datasets/{dataset_id}/versions/compare`."""
    counts = {str(kind): found.count(kind) for kind in ChangeKind}
    return {**counts, "same": found.same, "changes": [as_answer(one) for one in found.changes]}


def _say(arguments: Namespace, content: object, lines: Iterable[str]) -> None:
    """Print the content as JSON where that was asked for, else the lines."""
    if arguments.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(*lines, sep="\n")
