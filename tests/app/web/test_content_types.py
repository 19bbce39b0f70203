"""A body that cannot be read is a 400 or a 415, with what to send instead."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.web.openapi import operations

JSON = "application/json"


@pytest.mark.parametrize("body", ['{"name": "Ink"', "name=Ink", "{'name': 1}"])
def test_what_is_not_json_is_a_400_that_says_where(client: TestClient, body: str) -> None:
    answer = client.post("/api/v1/datasets", content=body, headers={"content-type": JSON})
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["detail"]


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "", "json"])
def test_json_of_another_type_is_a_415_that_names_the_right_one(
    client: TestClient, sent: str
) -> None:
    headers = {"content-type": sent} if sent else {}
    answer = client.post("/api/v1/datasets", content='{"name": "Ink"}', headers=headers)
    assert answer.status_code == 415
    assert JSON in answer.json()["detail"]


@pytest.mark.parametrize("sent", [JSON, "Application/JSON; charset=utf-8", "application/hal+json"])
def test_json_by_any_of_its_names_is_read(client: TestClient, sent: str) -> None:
    answer = client.post(
        "/api/v1/datasets", content='{"name": "Ink"}', headers={"content-type": sent}
    )
    assert answer.status_code == 201


def test_a_form_for_files_refuses_json_and_no_body_names_the_field(client: TestClient) -> None:
    client.post("/api/v1/datasets", json={"name": "Ink"})
    refused = client.post("/api/v1/datasets/1/images", json={"files": []})
    assert (refused.status_code, "multipart/form-data" in refused.text) == (415, True)
    assert client.post("/api/v1/datasets").status_code == 422


def test_every_operation_with_a_body_documents_both_and_how_to_log_in(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for method, path, operation in operations(document):
        known = {"400", "415"} <= set(operation["responses"])
        assert known == ("requestBody" in operation), (method, path)
    assert {"basic": []} in document["security"]
    assert {"bearer": []} in document["security"]
