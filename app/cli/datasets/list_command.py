"""`brushwork datasets list`: one line for each dataset."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from app.registry.datasets import service
from app.registry.datasets.service import DatasetSummary
from app.registry.state import AppState


def run(arguments: Namespace, state: AppState) -> int:
    """Print the datasets, newest first."""
    words = arguments.words or ""
    with state.database.read() as session:
        rows = service.list_datasets(session, q=words)
    if arguments.json:
        print(json.dumps([facts(row) for row in rows], indent=2, ensure_ascii=False))
        return 0
    for row in rows:
        print(_line(row))
    if not rows:
        print("No dataset matches." if words else "There are no datasets yet.")
    return 0


def facts(row: DatasetSummary) -> dict[str, Any]:
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
