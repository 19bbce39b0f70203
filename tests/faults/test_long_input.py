"""All six kinds of long text in every field of the API and the pages: `/healthz` goes on answering.

The web server is a process of its own here: what holds its interpreter cannot hold the watch.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from app.registry.config import Settings
from app.registry.datasets.service import create_dataset
from app.registry.state import AppState
from tests import fake_workers
from tests.faults.web_server import web_server
from tests.long_input import (
    FINE,
    KINDS,
    REFUSED,
    api_shots,
    fire,
    page_shots,
    single_form_shots,
)


@pytest.fixture
def url(settings: Settings, state: AppState) -> Iterator[str]:
    """`brushwork web` on a registry with a dataset and an adapter."""
    fake_workers.adapter(state, "Ink")
    with state.database.write() as session:
        create_dataset(session, "Ink")
    with web_server(settings.data_dir) as address:
        yield address


def test_no_long_text_in_any_field_stops_the_server(app: FastAPI, url: str) -> None:
    for shots in (api_shots(app, lambda: KINDS), page_shots(app, lambda: KINDS)):
        _expect_refusals(fire(url, shots))


def test_no_field_in_error_hides_another_one(app: FastAPI, url: str) -> None:
    _expect_refusals(fire(url, single_form_shots(app)))


def _expect_refusals(found: list[tuple[str, int]]) -> None:
    assert len(found) > 500
    wrong = [(about, status) for about, status in found if status not in REFUSED | FINE]
    assert wrong == []
