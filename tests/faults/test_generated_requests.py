"""No answer is undocumented: many requests for every operation of the REST API, valid and not."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from app.registry.state import AppState
from tests import fake_workers
from tests.generated_requests import generated_operations, send_requests

EXAMPLES = 30
PARTS = 4
"""Each has its own time limit, which all operations together passed on a slow machine."""


@pytest.mark.parametrize("part", range(PARTS))
def test_every_answer_is_documented(
    part: int, app: FastAPI, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    fake_workers.adapter(state, "Ink")
    for operation in list(generated_operations(app))[part::PARTS]:
        send_requests(operation, examples=EXAMPLES)
