"""Datasets through the REST API."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

Png = Callable[..., bytes]
PROBLEM = "application/problem+json"


def create(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/datasets", json={"name": "Chalk"} | body)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def send(client: TestClient, dataset_id: int, *files: tuple[str, bytes]) -> dict[str, Any]:
    answer = client.post(
        f"/api/v1/datasets/{dataset_id}/images", files=[("files", file) for file in files]
    )
    assert answer.status_code == 200, answer.text
    outcome: dict[str, Any] = answer.json()
    return outcome


def test_a_dataset_is_created_and_found(client: TestClient) -> None:
    created = create(client, trigger_word="chalk")
    assert created == {
        "id": created["id"],
        "slug": "chalk",
        "name": "Chalk",
        "trigger_word": "chalk",
        "image_count": 0,
        "owner": None,
        "visibility": None,
    }
    assert client.get(f"/api/v1/datasets/{created['id']}").json() == created
    assert client.get("/api/v1/datasets?q=chal").json() == [created]


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x" * 500}, {"name": "a", "b": 1}, []])
def test_a_wrong_dataset_is_a_problem_with_its_fields(client: TestClient, body: Any) -> None:
    answer = client.post("/api/v1/datasets", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["errors"]


def test_pictures_with_captions_come_in(client: TestClient, png: Png) -> None:
    key = create(client)["id"]
    outcome = send(client, key, ("fox.png", png(1)), ("fox.txt", b"a fox"), ("owl.png", png(2)))
    assert outcome["rejected"] == []
    assert [(row["filename"], row["caption"]) for row in outcome["accepted"]] == [
        ("fox.png", "a fox"),
        ("owl.png", ""),
    ]
    first = outcome["accepted"][0]
    assert (first["width"], first["height"], first["duplicate"]) == (80, 64, False)
    assert client.get(first["url"]).headers["content-type"] == "image/png"
    assert client.get(first["thumbnail_url"]).headers["content-type"] == "image/webp"
    assert client.get(f"/api/v1/datasets/{key}").json()["image_count"] == 2


def test_two_copies_of_a_picture_are_reported(client: TestClient, png: Png) -> None:
    key = create(client)["id"]
    send(client, key, ("fox.png", png(1)))
    (again,) = send(client, key, ("copy.png", png(1)))["accepted"]
    assert again["duplicate"]
    both = send(client, key, ("owl.png", png(2)), ("owl copy.png", png(2)))["accepted"]
    assert [row["duplicate"] for row in both] == [False, True]
    assert client.get(f"/api/v1/datasets/{key}").json()["image_count"] == 2


def test_a_zip_of_pictures_and_captions_comes_in(client: TestClient, png: Png) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../../style/fox.png", png(1))
        archive.writestr("style/fox.txt", "a fox")
    outcome = send(client, create(client)["id"], ("style.zip", content.getvalue()))
    assert [(row["filename"], row["caption"]) for row in outcome["accepted"]] == [
        ("fox.png", "a fox")
    ]


def test_each_refused_file_is_named_with_its_reason_and_the_rest_is_kept(
    client: TestClient, png: Png
) -> None:
    outcome = send(
        client,
        create(client)["id"],
        ("good.png", png(1)),
        ("empty.png", b""),
        ("page.png", b"<html><script>alert(1)</script></html>"),
        ("cut.png", png(2)[:60]),
        ("../../etc/passwd", b"root:x:0:0"),
    )
    assert [row["filename"] for row in outcome["accepted"]] == ["good.png"]
    refused = {row["filename"]: row["reason"] for row in outcome["rejected"]}
    assert set(refused) == {"empty.png", "page.png", "cut.png", "passwd"}
    assert all(reason.endswith((".", "!")) for reason in refused.values())


def test_an_upload_without_files_says_what_is_missing(client: TestClient) -> None:
    answer = client.post(f"/api/v1/datasets/{create(client)['id']}/images")
    assert answer.status_code == 422
    assert "files" in answer.json()["errors"][0]["field"]


def test_an_upload_to_nowhere_is_not_found(client: TestClient, png: Png) -> None:
    answer = client.post("/api/v1/datasets/77/images", files=[("files", ("a.png", png()))])
    assert answer.status_code == 404


def test_captions_change_and_a_stale_writer_gets_a_conflict(client: TestClient, png: Png) -> None:
    (image,) = send(client, create(client)["id"], ("fox.png", png(1)))["accepted"]
    place = f"/api/v1/images/{image['id']}"
    changed = client.patch(place, json={"caption": "a fox", "caption_version": 0}).json()
    assert (changed["caption"], changed["caption_version"]) == ("a fox", 1)
    stale = client.patch(place, json={"caption": "an owl", "caption_version": 0})
    assert stale.status_code == 409
    assert "a fox" in stale.json()["detail"]
    long = client.patch(place, json={"caption": "x" * 10_000})
    assert long.status_code == 422
    assert client.get(place).json()["caption"] == "a fox"


def test_pictures_and_datasets_go_and_come_back(client: TestClient, png: Png) -> None:
    key = create(client)["id"]
    (image,) = send(client, key, ("fox.png", png(1)))["accepted"]
    place = f"/api/v1/images/{image['id']}"
    assert client.delete(place).status_code == 200
    assert client.get(place).status_code == client.delete(place).status_code == 404
    assert client.post(f"{place}/restore").status_code == 200
    assert client.delete(f"/api/v1/datasets/{key}").status_code == 200
    assert client.get(f"/api/v1/datasets/{key}").status_code == 404
    assert client.post(f"/api/v1/datasets/{key}/restore").json()["image_count"] == 1


def test_a_dataset_can_be_renamed_and_lose_its_trigger_word(client: TestClient) -> None:
    key = create(client, trigger_word="chalk")["id"]
    changed = client.patch(f"/api/v1/datasets/{key}", json={"name": "Board", "trigger_word": ""})
    assert (changed.json()["name"], changed.json()["trigger_word"]) == ("Board", None)


@pytest.mark.parametrize("key", ["0", "-1", "abc", "99999999999999999999", "1e3", "%00"])
def test_ids_no_row_can_have_are_refused(client: TestClient, key: str) -> None:
    assert client.get(f"/api/v1/datasets/{key}").status_code in (404, 422)


def test_a_picture_can_be_shown_more_often_and_never_mirrored(
    client: TestClient, png: Callable[..., bytes]
) -> None:
    key = client.post("/api/v1/datasets", json={"name": "Ink"}).json()["id"]
    files = [("files", ("a.png", png(1), "image/png"))]
    (image,) = client.post(f"/api/v1/datasets/{key}/images", files=files).json()["accepted"]
    place = f"/api/v1/images/{image['id']}"
    assert (image["repeats"], image["never_flip"]) == (1, False)
    changed = client.patch(place, json={"repeats": 4, "never_flip": True}).json()
    assert (changed["repeats"], changed["never_flip"], changed["caption"]) == (4, True, "")
    assert client.patch(place, json={"caption": "a fox"}).json()["repeats"] == 4
    for wrong in ({"repeats": 0}, {"repeats": "often"}, {}):
        assert client.patch(place, json=wrong).status_code == 422
