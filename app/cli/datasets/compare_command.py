"""`brushwork datasets compare`: what differs between two versions, or a version and now."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict

from app.registry.comparison.datasets import (
    ChangeKind,
    ItemChange,
    VersionChanges,
    compare_versions,
)
from app.registry.datasets import service
from app.registry.state import AppState

MARKS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}


def run(arguments: Namespace, state: AppState) -> int:
    """Print the differences. Raises NotFound, and Conflict for a version without images."""
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        found = compare_versions(session, dataset.key, arguments.before, arguments.after)
    if arguments.json:
        print(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
        return 0
    counts = ", ".join(f"{found.count(kind):,} {kind}" for kind in ChangeKind)
    print(f"{counts}, {found.same:,} the same")
    for change in found.changes:
        for line in _lines(change):
            print(line)
    return 0


def _lines(change: ItemChange) -> Iterator[str]:
    yield f"{MARKS[change.kind]} {change.filename}"
    if change.kind is not ChangeKind.CHANGED:
        return
    for caption in change.captions:
        yield f"    - {caption.kind}: {caption.before or '(none)'}"
        yield f"    + {caption.kind}: {caption.after or '(none)'}"
    yield from (f"    {fact}" for fact in change.facts)


def _as_json(found: VersionChanges) -> dict[str, object]:
    """The same fields as `GET /datasets/{dataset_id}/versions/compare`."""
    counts = {str(kind): found.count(kind) for kind in ChangeKind}
    names = ("kind", "sha256", "filename", "captions", "facts")
    changes = [{name: asdict(change)[name] for name in names} for change in found.changes]
    return {**counts, "same": found.same, "changes": changes}
