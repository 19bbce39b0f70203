"""One request stops nothing: long texts in every field, on a real server.

Each field gets one of the six kinds of text, every third of them in `make test` and all in
`make wide`; `tests/faults/test_long_input.py` sends all kinds, and longer ones.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.registry.adapters.library.search import needles
from app.registry.config import Settings
from app.registry.datasets.service import create_dataset
from app.registry.db import Database
from app.registry.errors import InvalidInput
from app.registry.hub_source import read_source
from app.registry.renders.lora_tags import take_tags
from app.web.openapi import Schema, operations
from tests import fake_workers, long_input
from tests.costs import wide_but
from tests.documented import resolved
from tests.live_server import Live, serve
from tests.long_input import (
    FINE,
    KINDS,
    LONG,
    REFUSED,
    Shot,
    api_shots,
    fire,
    long_text,
    page_shots,
)
from worker.core.training.prompts import PromptError, parse_prompt

LONG_ENOUGH = 300_000  # for what is quadratic to be seen; more than the server reads of a head


@pytest.fixture
def live(app: FastAPI, settings: Settings) -> Iterator[Live]:
    """A server with a dataset, an adapter and a run, all named ink."""
    with serve(app, settings) as running:
        fake_workers.adapter(running.state, "Ink")
        with running.database.write() as session:
            create_dataset(session, "Ink")
        yield running


@pytest.mark.parametrize("of", wide_but([3, 1], 3))
def test_a_long_text_in_any_field_is_refused_and_stops_nothing(
    of: int, app: FastAPI, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_input, "LONG", LONG_ENOUGH)
    turns = itertools.cycle([(kind,) for kind in KINDS])
    for shots in (api_shots, page_shots):
        found = fire(live.url, itertools.islice(shots(app, lambda: next(turns)), 0, None, of))
        assert len(found) > 100
        assert [(about, status) for about, status in found if status not in REFUSED | FINE] == []


def test_every_kind_of_long_prompt_is_refused(live: Live) -> None:
    json_type = {"content-type": "application/json"}
    bodies = [json.dumps({"prompt": long_text(kind, LONG)}).encode() for kind in KINDS]
    shots = (Shot("prompt", "POST", "/api/v1/renders", body, json_type) for body in bodies)
    assert {status for _, status in fire(live.url, shots)} == {422}


def test_a_form_with_a_long_text_is_refused_with_its_field_and_leads_back(
    client: TestClient,
) -> None:
    headers = {"accept": "text/html", "referer": "http://localhost/play?steps=9"}
    for more, says in (
        (1_000_000, "prompt: This has 1,000,000 characters; use at most 100,000."),
        (2_000_001, "This is more than 2 MB in one request."),
    ):
        answer = client.post("/play", data={"prompt": "x" * more}, headers=headers)
        assert says in answer.text
        assert '<a class="button main" href="/play?steps=9">Go back</a>' in answer.text


def test_deep_json_is_refused(client: TestClient) -> None:
    deep = "[" * 100_000
    headers = {"content-type": "application/json"}
    for body in (deep, f'{{"dataset_id": 1, "config": {deep}'):
        answer = client.post("/api/v1/runs", content=body, headers=headers)
        assert answer.status_code in (400, 422)
    form = {"shown": "[" * 50_000, "dataset_id": "1"}
    assert client.post("/train/new", data=form).status_code == 422


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_that_are_looked_at_cost_little(kind: str, sqlite_database: Database) -> None:
    """Quadratic work on them would keep this test busy until its timeout."""
    text = long_text(kind, LONG_ENOUGH)
    with sqlite_database.read() as session, pytest.raises(InvalidInput):
        take_tags(session, text)
    assert needles(text) is not None
    assert read_source(text) is None
    with contextlib.suppress(PromptError):
        parse_prompt(text)


def test_every_text_and_list_of_the_api_has_a_bound(app: FastAPI) -> None:
    document = app.openapi()
    unbounded = []
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            one = resolved(document, parameter)
            unbounded += _unbounded(document, one["schema"], f"{method} {path} {one['name']}")
        for content in operation.get("requestBody", {}).get("content", {}).values():
            unbounded += _unbounded(document, content["schema"], f"{method} {path}")
    assert unbounded == []


def _unbounded(document: Schema, schema: Schema, place: str) -> Iterator[str]:
    """The places below this one of texts and lists without a longest length."""
    schema = resolved(document, schema)
    for choice in schema.get("anyOf", []):
        yield from _unbounded(document, choice, place)
    kind: Any = schema.get("type")
    is_closed = {"maxLength", "enum", "const", "contentMediaType"} & set(schema)
    if kind == "string" and not is_closed:
        yield place
    if kind == "array":
        if "maxItems" not in schema:
            yield f"{place}[]"
        yield from _unbounded(document, schema["items"], f"{place}[]")
    for name, below in schema.get("properties", {}).items():
        yield from _unbounded(document, below, f"{place}.{name}")
