"""Limits on callers of the server and on the size of requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.registry.config import Settings
from app.registry.state import AppState
from tests import fake_workers
from tests.conftest import AppMaker
from tests.images import make_png


def create(client: TestClient, **headers: str) -> int:
    return client.post("/api/v1/datasets", json={"name": "x"}, headers=headers).status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"sec-fetch-site": "none"}, 201),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://localhost"}, 201),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"referer": "http://localhost/datasets"}, 201),
        ({"referer": "http://evil.example/"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost"}, 403),
    ],
)
def test_changes_are_taken_only_from_our_own_pages(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert create(client, **headers) == status


def test_other_sites_may_link_to_us(client: TestClient) -> None:
    answer = client.get("/api/v1/datasets", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200


def test_a_foreign_host_name_is_refused(client: TestClient) -> None:
    assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 400


def test_every_answer_keeps_the_page_to_itself(client: TestClient) -> None:
    for place in ("/healthz", "/api/v1/datasets/99", "/media/" + "0" * 64):
        headers = client.get(place).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "unsafe" not in headers["content-security-policy"]


def test_a_body_declared_too_large_is_refused_before_it_is_read(client: TestClient) -> None:
    answer = client.post(
        "/api/v1/datasets",
        content=b"{}",
        headers={"content-type": "application/json", "content-length": str(13 * 2**30)},
    )
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "2 MB" in answer.json()["detail"]


def test_an_upload_declared_as_thirteen_gigabytes_is_refused(client: TestClient) -> None:
    answer = client.post(
        "/api/v1/datasets/1/images",
        content=b"",
        headers={
            "content-type": "multipart/form-data; boundary=x",
            "content-length": str(13 * 2**30),
        },
    )
    assert answer.status_code == 413
    assert "12 GB" in answer.json()["detail"]


def test_a_body_that_lies_about_its_size_is_cut_off_while_it_comes(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"name": "'
        for _ in range(40):
            yield b"x" * 2**16
        yield b'"}'

    answer = client.post(
        "/api/v1/datasets", content=chunks(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413
    assert "2 MB" in answer.json()["detail"]


@pytest.fixture
def guarded(make_app: AppMaker, settings: Settings) -> Iterator[TestClient]:
    locked = settings.model_copy(update={"password": SecretStr("öl:farbe")})
    with TestClient(make_app(locked), base_url="http://localhost") as client:
        yield client


def test_without_the_password_only_probes_are_answered(guarded: TestClient) -> None:
    refused = guarded.get("/api/v1/datasets")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")
    assert guarded.get("/healthz").status_code == 200


@pytest.mark.parametrize("user", ["me", ""])
def test_the_password_opens_by_basic_authentication(guarded: TestClient, user: str) -> None:
    answer = guarded.get("/api/v1/datasets", auth=(user, "öl:farbe"))
    assert answer.status_code == 200
    assert guarded.get("/api/v1/datasets", auth=(user, "wrong")).status_code == 401


def test_the_password_opens_as_a_bearer_token(guarded: TestClient) -> None:
    bearer = "Bearer öl:farbe".encode()
    assert guarded.get("/api/v1/datasets", headers={b"authorization": bearer}).status_code == 200
    for wrong in (b"Bearer x", b"Basic ???", b"Digest a", b""):
        headers = {b"authorization": wrong}
        assert guarded.get("/api/v1/datasets", headers=headers).status_code == 401


def test_a_bare_image_may_only_style_the_page_the_browser_makes_for_it(
    client: TestClient, state: AppState
) -> None:
    sha256 = fake_workers.blob(state, make_png(1))
    policy = client.get(f"/media/{sha256}").headers["content-security-policy"]
    assert policy == "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    adapter = fake_workers.adapter(state)
    file = client.get(f"/api/v1/adapters/{adapter.key}/download")
    assert file.headers["content-security-policy"] == "sandbox; default-src 'none'"
