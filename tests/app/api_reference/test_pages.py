"""The page of the REST API names every operation before any script has run."""

from __future__ import annotations

import html
import re

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.web.openapi import operations


def test_every_operation_is_on_the_page_with_a_link_into_the_viewer(
    app: FastAPI, client: TestClient
) -> None:
    text = html.unescape(client.get("/docs").text)
    for method, path, operation in operations(app.openapi()):
        link = f'href="#/{operation["tags"][0]}/{operation["operationId"]}">'
        (row,) = [line for line in text.splitlines() if link in line]
        assert f">{method.upper()}</span> <code>{path}</code>" in row
        assert operation["summary"] in row


def test_groups_are_in_the_order_of_the_work_and_have_a_sentence(client: TestClient) -> None:
    text = client.get("/docs").text
    titles = re.findall(r'<h2 class="panel-title">([^<]+)</h2>\s*<p class="hint">[^<]+</p>', text)
    assert titles[:5] == ["Datasets", "Base models", "Caption models", "Runs", "Evaluations"]
    assert titles[-1] == "Server"


def test_the_introduction_has_its_code_set_as_code(client: TestClient) -> None:
    text = client.get("/docs").text
    assert "<code>application/problem+json</code>" in text
    assert "`" not in text.split("data-api-list")[0].split("<main")[1]


def test_it_is_linked_from_every_page_and_leads_to_the_document(client: TestClient) -> None:
    assert '<a href="/docs">REST API</a>' in client.get("/datasets").text
    assert client.get("/system").text.count('href="/docs"') == 2
    assert 'href="/openapi.json"' in client.get("/docs").text


def test_the_page_is_small(client: TestClient) -> None:
    assert len(client.get("/docs").content) < 68_000
