"""The images of a dataset by filter and page, and its statistics, through REST."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

API = "/api/v1/datasets/1"
Png = Callable[..., bytes]


def fill(client: TestClient, png: Png, *captions: str) -> None:
    files = []
    for number, caption in enumerate(captions):
        files.append(("files", (f"{number}.png", png(number + 1), "image/png")))
        if caption:
            files.append(("files", (f"{number}.txt", caption.encode(), "text/plain")))
    client.post("/datasets", data={"name": "Boats", "trigger_word": "ink"}, files=files)


def test_images_are_filtered_ordered_and_paged(client: TestClient, png: Png) -> None:
    fill(client, png, "ink, a boat", "a pink boat", "", "ink, a fox")

    def names(query: str) -> list[str]:
        answer = client.get(f"{API}/images?{query}")
        assert answer.status_code == 200, answer.text
        return [row["filename"][0] for row in answer.json()]

    assert names("") == names("show=all") == ["0", "1", "2", "3"]
    assert names("show=uncaptioned") == ["2"]
    assert names("show=no_trigger&show=small") == ["1", "2"]
    assert names("with=boat&without=ink") == ["1"]
    assert names("q=pink") == ["1"]
    assert names("sort=newest&limit=3") == ["3", "2", "1"]
    assert client.get(f"{API}/images?limit=1").headers["x-total-count"] == "4"


def test_what_is_no_filter_is_refused_with_those_that_are(client: TestClient, png: Png) -> None:
    fill(client, png, "a boat")

    def refused(query: str) -> dict[str, Any]:
        answer = client.get(f"{API}/images?{query}")
        assert answer.status_code == 422
        problem: dict[str, Any] = answer.json()
        return problem

    unknown = refused("show=small&show=pretty")
    assert unknown["detail"].startswith("There is no filter “pretty”. Use uncaptioned, no_trigger")
    assert [error["field"] for error in unknown["errors"]] == ["show"]
    assert refused("sort=weight")["errors"][0]["field"] == "sort"
    many = "&".join(f"with=word{number}" for number in range(200))
    assert "At most 20 words" in refused(many)["detail"]
    problem = refused(many.replace("with=", "without="))
    assert problem["errors"][0]["field"] == "without"
    assert refused("q=" + "q" * 5_000)["errors"][0]["field"] == "q"
    assert refused("limit=0&page=1000000000")["status"] == 422
    assert client.get("/api/v1/datasets/9/images").status_code == 404


def test_statistics_agree_with_the_filters(client: TestClient, png: Png) -> None:
    fill(client, png, "ink, a boat", "a pink boat, ink", "")
    found = client.get(f"{API}/statistics").json()
    assert (found["image_count"], found["captioned_count"]) == (3, 2)
    assert found["lengths"] == {"shortest": 3, "median": 4, "longest": 4}
    assert found["sizes"] == [{"at_least": 0, "below": 256, "images": 3}]
    for one in found["words"] + found["tags"]:
        matching = client.get(f"{API}/images", params={"with": one["word"]}).json()
        assert len(matching) == one["images"], one
    for name, count in found["filters"].items():
        assert len(client.get(f"{API}/images?show={name}").json()) == count, name
    assert client.get("/api/v1/datasets/9/statistics").status_code == 404
