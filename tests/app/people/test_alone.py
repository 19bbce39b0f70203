"""Who is alone notices nothing of accounts: the same pages and answers by as many statements."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi import FastAPI

from tests.app.people.alone import body_of, digest, record

BEFORE = json.loads((Path(__file__).parent / "alone.json").read_text())


def test_pages_and_statements_are_those_from_before_accounts(app: FastAPI) -> None:
    found = {
        address: [status, digest(body), statements]
        for address, (status, body, statements) in record(app).items()
    }
    assert found.keys() == BEFORE.keys()
    assert {key: one for key, one in found.items() if one != BEFORE[key]} == {}


def test_an_owner_in_an_answer_is_noticed() -> None:
    """Only fields that are null are left out."""
    nobody, data = b'{"id":1,"owner":null,"visibility":null}', Path("/nowhere")
    assert body_of(nobody, data) == '{"id":1}'
    assert "studio" in body_of(nobody.replace(b"null}", b'"studio"}'), data)
