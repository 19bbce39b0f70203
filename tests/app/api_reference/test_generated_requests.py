"""No answer is undocumented: a request of each kind for every operation of the REST API.

`tests/faults/test_generated_requests.py` sends many more.
"""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from schemathesis import GenerationMode

from app.registry.state import AppState
from tests import fake_workers
from tests.generated_requests import document_of, generated_operations, send_requests


def test_every_answer_to_an_invalid_request_is_documented(
    app: FastAPI, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    fake_workers.adapter(state, "Ink")
    sent = 0
    for operation in generated_operations(app):
        send_requests(operation, examples=1, modes=[GenerationMode.NEGATIVE])
        sent += 1
    assert sent == sum(len(methods) for methods in document_of(app)["paths"].values())


def test_an_answer_that_is_not_documented_is_found(app: FastAPI, state: AppState) -> None:
    document = document_of(app)
    answers = document["paths"]["/api/v1/datasets/{dataset_id}"]["get"]["responses"]
    answers["299"] = answers.pop("404")
    answers["298"] = answers.pop("200")
    found = generated_operations(app, document)
    (operation,) = (one for one in found if one.label == "GET /api/v1/datasets/{dataset_id}")
    with pytest.raises(BaseExceptionGroup, match="failure"):
        send_requests(operation, examples=2, modes=[GenerationMode.POSITIVE])
