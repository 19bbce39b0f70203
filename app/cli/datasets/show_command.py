"""`brushwork datasets show`: the images, captions and pinned versions of a dataset."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from app.cli.datasets.list_command import facts
from app.registry.datasets import service
from app.registry.datasets.models import Image
from app.registry.datasets.service import DatasetSummary
from app.registry.datasets.transfer.versions import VersionSummary, list_versions
from app.registry.state import AppState
from app.registry.wording import plural

IMAGE_FACTS = {
    "id",
    "filename",
    "sha256",
    "width",
    "height",
    "caption",
    "repeats",
    "never_flip",
}


def run(arguments: Namespace, state: AppState) -> int:
    """Print a dataset. Raises NotFound."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        summary = service.summary(session, dataset)
        images = service.list_images(session, dataset.key)
        versions = list_versions(session, dataset.key)
    if arguments.json:
        print(json.dumps(_as_json(summary, images, versions), indent=2, ensure_ascii=False))
        return 0
    for line in _lines(summary, images, versions):
        print(line)
    return 0


def _as_json(
    summary: DatasetSummary, images: list[Image], versions: list[VersionSummary]
) -> dict[str, Any]:
    return facts(summary) | {
        "images": [image.model_dump(include=IMAGE_FACTS) for image in images],
        "versions": [
            asdict(version) | {"created_at": version.created_at.isoformat()} for version in versions
        ],
    }


def _lines(
    summary: DatasetSummary, images: list[Image], versions: list[VersionSummary]
) -> Iterator[str]:
    word = summary.dataset.trigger_word
    yield summary.dataset.name
    yield (
        f"{plural(summary.image_count, 'image')}, {summary.captioned_count} captioned; "
        f"{f'trigger word {word}' if word else 'no trigger word'}"
    )
    for image in images:
        rules = f", {image.repeats} repeats" if image.repeats > 1 else ""
        rules += ", never flipped" if image.never_flip else ""
        size = f"{image.width}x{image.height}"
        yield f"  {image.filename:<32} {size:<11} {image.caption or '(no caption)'}{rules}"
    if versions:
        yield "Versions:"
    for version in versions:
        used = [f"run {run.id} “{run.name}”" for run in version.runs]
        used += [f"adapter {adapter.slug} v{adapter.version}" for adapter in version.adapters]
        made = f"{version.created_at:%Y-%m-%d %H:%M}"
        count = plural(version.image_count, "image")
        yield f"  {version.id:<6} {made}  {count:<12} {', '.join(used) or 'not used now'}"
