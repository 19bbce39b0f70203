"""`brushwork datasets check`: what to look at in a dataset before training."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict

from app.registry.datasets import service
from app.registry.datasets.checks.findings import Finding, Report
from app.registry.datasets.checks.service import check_dataset
from app.registry.state import AppState
from app.registry.wording import plural

OPEN = 3
"""The exit code while there are findings that are not mere advice."""


def run(arguments: Namespace, state: AppState) -> int:
    """Print the findings; return 3 while some are open, else 0."""
    with state.database.read() as session:
        report = check_dataset(session, service.dataset_by_slug(session, arguments.slug))
    if arguments.json:
        print(json.dumps(_as_json(report), indent=2, ensure_ascii=False))
    else:
        for line in _lines(report):
            print(line)
    return OPEN if report.open else 0


def _lines(report: Report) -> Iterator[str]:
    images, captions = plural(report.image_count, "image"), plural(report.caption_count, "caption")
    yield f"{images} and {captions} checked, {plural(len(report.open), 'open finding')}."
    for found in report.findings:
        yield f"{found.level + ':':<9}{found.title}. {found.reason}"
        yield from (f"{'':<9}{line}" for line in found.details)
    yield from report.rest


def _as_json(report: Report) -> dict[str, object]:
    """The same fields as `GET /datasets/{dataset_id}/checks`."""
    return {
        "image_count": report.image_count,
        "caption_count": report.caption_count,
        "open": len(report.open),
        "findings": [_finding(found) for found in report.findings],
        "clear": list(report.clear),
        "not_measured": dict(report.not_measured),
    }


def _finding(found: Finding) -> dict[str, object]:
    return {**asdict(found), "count": found.count}
