"""No answer is undocumented: an invalid request for operations of the REST API.

For every fourth in `make test`, for all in `make wide`; `tests/faults/test_generated_requests.py`
sends many more, and the client of all other tests looks at every answer that it gets.
"""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from schemathesis import GenerationMode

from app.registry.state import AppState
from tests import fake_workers
from tests.costs import wide_but
from tests.generated_requests import (
    document_of,
    generated_operations,
    quote_path,
    send_requests,
)


@pytest.mark.parametrize("of", wide_but([4, 1], 4))
def test_every_answer_to_an_invalid_request_is_documented(
    of: int, app: FastAPI, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    fake_workers.adapter(state, "Ink")
    found = list(generated_operations(app))
    assert len(found) == sum(len(methods) for methods in document_of(app)["paths"].values())
    for operation in found[::of]:
        send_requests(operation, examples=1, modes=[GenerationMode.NEGATIVE])


def test_an_answer_that_is_not_documented_is_found(app: FastAPI, state: AppState) -> None:
    document = document_of(app)
    answers = document["paths"]["/api/v1/datasets/{dataset_id}"]["get"]["responses"]
    answers["299"] = answers.pop("404")
    answers["298"] = answers.pop("200")
    found = generated_operations(app, document)
    (operation,) = (one for one in found if one.label == "GET /api/v1/datasets/{dataset_id}")
    with pytest.raises(BaseExceptionGroup, match="failure"):
        send_requests(operation, examples=2, modes=[GenerationMode.POSITIVE])


def test_an_array_in_a_path_does_not_reach_another_operation(app: FastAPI) -> None:
    label = "POST /api/v1/datasets/{dataset_id}/edits/{edit_id}/undo"
    (operation,) = (one for one in generated_operations(app) if one.label == label)
    case = operation.Case(path_parameters={"dataset_id": [["a?b#c"]], "edit_id": 1})
    quote_path(case)
    assert case.call(base_url="http://localhost").status_code == 404  # and not 405
