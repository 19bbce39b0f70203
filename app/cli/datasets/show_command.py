"""`brushwork datasets show`: figures, images, captions and pinned versions of a dataset."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.cli.datasets.list_command import facts
from app.registry.datasets import service
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


@dataclass(frozen=True)
class Shown:
    """The printed facts of a dataset; `filters`: the number of images that each one finds."""

    summary: DatasetSummary
    figures: DatasetStatistics
    filters: Mapping[Show, int]
    images: list[Image]
    versions: list[VersionSummary]


def run(arguments: Namespace, state: AppState) -> int:
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
    if arguments.json:
        print(json.dumps(_as_json(shown), indent=2, ensure_ascii=False))
        return 0
    for line in (*_figures(shown), *_images(shown.images), *_versions(shown.versions)):
        print(line)
    return 0


def _as_json(shown: Shown) -> dict[str, Any]:
    return facts(shown.summary) | {
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
