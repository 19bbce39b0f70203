"""Renders and adapters through the REST API."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters.downloads import facts_sha256, version_metadata
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.renders.requests import RenderRequest
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Recipe, Render, RenderImage
from app.web.playground.api import RenderOut
from tests import fake_workers
from tests.conftest import embedded_info
from worker.core.inference.config import ImageSettings


@pytest.fixture
def adapter(state: AppState) -> int:
    with state.database.write() as session:
        row = Adapter(slug="chalk", name="Chalk", base_family="sd1", trigger_words=["chalk"])
        session.add(row)
        session.flush()
        session.add(
            AdapterVersion(
                adapter_id=row.key,
                version=1,
                sha256="b" * 64,
                size_bytes=10,
                rank=8,
                alpha=8,
                base_model_id=1,
            )
        )
    return row.key


def draw(client: TestClient, **body: Any) -> Any:
    return client.post("/api/v1/renders", json={"prompt": "a fox"} | body)


def test_a_render_is_accepted_with_the_defaults_of_its_base(client: TestClient) -> None:
    created = draw(client, seed=7)
    assert created.status_code == 202
    render = client.get(f"/api/v1/renders/{created.json()['id']}").json()
    assert (render["status"], render["width"], render["seed"]) == (
        "queued",
        embedded_info().resolution,
        7,
    )
    assert render["images"] == []
    assert created.json()["twin_id"] is None


def test_a_strip_has_an_image_for_each_list_of_weights(
    client: TestClient, adapter: int, state: AppState
) -> None:
    strip = {"adapters": [{"id": adapter}], "weights": [[0.5], [1.0]], "seed": 7}
    key = draw(client, **strip).json()["id"]
    fake_workers.draw(state)
    render = client.get(f"/api/v1/renders/{key}").json()
    assert [image["seed"] for image in render["images"]] == [7, 7]
    assert render["weights"] == [[0.5], [1.0]]
    (used,) = render["adapters"]
    assert used == {
        "id": adapter,
        "name": "Chalk",
        "slug": "chalk",
        "version": 1,
        "weight": 1.0,
        "text_encoder_weight": 1.0,
        "block_weights": None,
    }
    for weights in ([], [[]], [[0.1, 0.2]], [["NaN"]], [[0.1]] * 26):
        refused = draw(client, **strip | {"weights": weights})
        assert refused.status_code == 422, weights


def test_a_draft_replaces_the_one_before_of_its_slot_and_can_be_kept(client: TestClient) -> None:
    first, second = (draw(client, seed=seed, draft_slot="one").json()["id"] for seed in (1, 2))
    assert client.get(f"/api/v1/renders/{first}").json()["status"] == "canceled"
    assert client.get(f"/api/v1/renders/{second}").json()["draft"] is True
    for _ in range(2):
        assert client.post(f"/api/v1/renders/{second}/keep").json()["draft"] is False
    for slot in ("", "a b", "x" * 65, 5):
        assert draw(client, draft_slot=slot).status_code == 422


def test_a_cached_render_and_its_twin_are_answered_with_their_images(
    client: TestClient, adapter: int, state: AppState
) -> None:
    body: dict[str, Any] = {"seed": 7, "adapters": [{"id": adapter}], "twin": True}
    assert draw(client, **body).json()["images"] == []
    render, twin = fake_workers.draw(state)
    again = draw(client, **body).json()
    assert (again["status"], again["images"][0]["seed"]) == ("succeeded", 7)
    for created, key in ((render.key, again["id"]), (twin.key, again["twin_id"])):
        before, after = (client.get(f"/api/v1/renders/{one}").json() for one in (created, key))
        assert (after["status"], after["from_cache"], after["progress"]) == ("succeeded", True, 20)
        assert after["images"] == before["images"] != []
    (image,) = again["images"]
    assert client.get(image["url"]).status_code == 200
    # a lost image is drawn again, and its twin is still answered
    state.store.delete(image["url"].removeprefix("/media/"))
    lost = draw(client, **body).json()
    assert (lost["status"], lost["images"]) == ("queued", [])
    assert client.get(f"/api/v1/renders/{lost['twin_id']}").json()["status"] == "succeeded"


def test_a_twin_without_adapters_is_drawn_beside_it(
    client: TestClient, adapter: int, state: AppState
) -> None:
    created = draw(client, seed=7, adapters=[{"id": adapter, "weight": 0.5}], twin=True).json()
    with state.database.read() as session:
        twin = session.get_one(Render, created["twin_id"])
        render = session.get_one(Render, created["id"])
    assert (twin.adapters, twin.seed) == ([], 7)
    assert render.adapters[0]["text_encoder_weight"] == 0.5
    assert twin.cache_key != render.cache_key


def test_an_adapter_at_weight_zero_is_the_same_picture_as_none(
    client: TestClient, adapter: int, state: AppState
) -> None:
    keys = [
        draw(client, seed=7, adapters=stack).json()["id"]
        for stack in ([], [{"id": adapter, "weight": 0}])
    ]
    with state.database.read() as session:
        plain, zero = (session.get_one(Render, key).cache_key for key in keys)
    assert plain == zero


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 5_000}, "prompt"),
        ({"steps": 0}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"guidance": 99}, "guidance"),
        ({"sampler": "magic"}, "sampler"),
        ({"sampler": "lcm", "steps": 51}, "steps"),
        ({"width": 65}, "width"),
        ({"width": 2_048, "height": 2_048}, "width"),
        ({"width": 2_048, "height": 160}, "width"),  # 20 times the area of 128 × 128
        ({"count": 50}, "count"),
        ({"seed": -1}, "seed"),
        ({"base_model": "sd-9"}, "base_model"),
        ({"adapters": [{"id": 1, "weight": "abc"}]}, "adapters.0.weight"),
        ({"adapters": [{"id": 1, "weight": 99}]}, "adapters.0.weight"),
        ({"width": 0}, "width"),
        ({"height": 9_999}, "height"),
        ({"adapters": [{"id": 999}]}, "adapters"),
        ({"adapters": [{"id": 1}] * 9}, "adapters"),
    ],
)
def test_a_wrong_render_names_its_field(
    client: TestClient, adapter: int, body: dict[str, Any], field: str
) -> None:
    answer = draw(client, **body)
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert f"{field}: " in answer.json()["detail"]


def test_an_unknown_sampler_is_answered_with_those_there_are(client: TestClient) -> None:
    (error,) = draw(client, sampler="magic").json()["errors"]
    assert error["detail"].startswith("Should be 'ddim', 'euler', 'euler_a', 'dpmpp_2m'")
    created = draw(client, sampler="Euler a").json()  # as A1111 writes it
    assert client.get(f"/api/v1/renders/{created['id']}").json()["sampler"] == "euler_a"


def test_an_adapter_for_another_base_is_refused_with_those_it_fits(
    client: TestClient, adapter: int, state: AppState
) -> None:
    with state.database.write() as session:
        new = NewVersion("Real", "sd1", "c" * 64, 10, 8, 8.0)  # imported: its base is not known
        real = publish(session, new).adapter_id
    answer = draw(client, adapters=[{"id": real}], base_model="starter")
    assert answer.status_code == 422
    sentence = (
        "“Real” was made for SD 1.x and does not fit “starter”. No base model here fits it. Add "
        "one on the base models page."
    )
    assert answer.json()["errors"] == [{"field": "adapters", "detail": sentence}]
    with state.database.write() as session:
        row = BaseModel(slug="sd15", name="SD 1.5", source=str(state.settings.data_dir))
        row.status, row.family, row.parameters = "ready", "sd1", {"unet": 859_535_364}
        session.add(row)
    answer = draw(client, adapters=[{"id": real}, {"id": adapter}], base_model="starter")
    assert "It fits “SD 1.5”." in answer.json()["detail"]
    answer = draw(client, prompt="a fox <lora:chalk:1>", base_model="sd15")
    assert "“Chalk” was made for “starter” and does not fit “SD 1.5”. It fits" in answer.text
    assert draw(client, adapters=[{"id": real}]).status_code == 202  # on the base that it fits
    with state.database.read() as session:
        (render,) = session.exec(select(Render)).all()
        assert session.get_one(BaseModel, render.base_model_id).slug == "sd15"


def test_numbers_that_are_none_are_refused(client: TestClient, adapter: int) -> None:
    for number in ("NaN", "Infinity", "1e999"):
        answer = client.post(
            "/api/v1/renders",
            content=f'{{"prompt": "a", "adapters": [{{"id": 1, "weight": {number}}}]}}',
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 422


def test_a_finished_render_shows_its_pictures(client: TestClient, state: AppState) -> None:
    key = draw(client).json()["id"]
    with state.database.write() as session:
        session.add(RenderImage(render_id=key, index=0, seed=7, sha256="c" * 64))
    shown = client.get(f"/api/v1/renders/{key}").json()
    url = "/media/" + "c" * 64
    assert shown["images"] == [{"url": url, "thumbnail_url": f"{url}/small", "seed": 7}]


def test_a_render_can_be_canceled_twice(client: TestClient) -> None:
    key = draw(client).json()["id"]
    for _ in range(2):
        assert client.post(f"/api/v1/renders/{key}/cancel").json()["status"] == "canceled"


def test_adapters_are_found_by_name_trigger_and_tag(client: TestClient, adapter: int) -> None:
    client.patch(f"/api/v1/adapters/{adapter}", json={"tags": ["Board", "green"], "notes": "dry"})
    for query in ("q=chal", "q=green", "tag=board", "q=dry", "base=sd1", "sort=name"):
        assert [row["slug"] for row in client.get(f"/api/v1/adapters?{query}").json()] == ["chalk"]
    for query in ("q=100%25", "tag=red", "base=sdxl", "starred=true"):
        assert client.get(f"/api/v1/adapters?{query}").json() == []


def test_an_adapter_shows_its_newest_version(client: TestClient, adapter: int) -> None:
    shown = client.get(f"/api/v1/adapters/{adapter}").json()
    assert (shown["version"], shown["versions"], shown["sha256"]) == (1, 1, "b" * 64)
    assert (shown["base_family"], shown["trigger_words"]) == ("sd1", ["chalk"])


def test_an_adapter_goes_and_comes_back(client: TestClient, adapter: int) -> None:
    place = f"/api/v1/adapters/{adapter}"
    assert client.delete(place).status_code == 200
    assert client.get(place).status_code == 404
    assert draw(client, adapters=[{"id": adapter}]).status_code == 422
    assert client.post(f"{place}/restore").status_code == 200


def test_a_download_has_a_safe_name_and_an_etag(
    client: TestClient, adapter: int, state: AppState
) -> None:
    blob = state.store.put_bytes(b"tensors")
    with state.database.write() as session:
        session.add(
            AdapterFile(
                version_id=1,
                format="kohya",
                dtype="fp16",
                sha256=blob.sha256,
                size_bytes=7,
                proof={"passed": True},
                facts_sha256=facts_sha256(
                    version_metadata(session, session.get_one(AdapterVersion, 1))
                ),
            )
        )
    answer = client.get(f"/api/v1/adapters/{adapter}/download")
    assert answer.content == b"tensors"
    assert 'filename="chalk-v1.safetensors"' in answer.headers["content-disposition"]
    etag = answer.headers["etag"]
    again = client.get(f"/api/v1/adapters/{adapter}/download", headers={"if-none-match": etag})
    assert again.status_code == 304
    assert client.get(f"/media/{blob.sha256}").status_code == 404


def test_a_download_nobody_asked_for_before_is_ordered_once(
    client: TestClient, adapter: int, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.2)
    for _ in range(2):
        answer = client.get(f"/api/v1/adapters/{adapter}/download?format=bundle&dtype=bf16")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
    with state.database.read() as session:
        orders = session.exec(select(IoJob).where(IoJob.kind == "export_adapter")).all()
    assert [job.args for job in orders] == [{"format": "bundle", "dtype": "bf16"}]


@pytest.mark.parametrize("query", ["format=ckpt", "dtype=fp8", "version=0", "version=7"])
def test_a_wrong_download_is_refused(client: TestClient, adapter: int, query: str) -> None:
    assert client.get(f"/api/v1/adapters/{adapter}/download?{query}").status_code in (404, 422)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"PK\x03\x04aaaaaaa", "pickle"),
        (b"\x80\x02aaaaaaaa", "pickle"),
        (b"GIF89a....", "is not a .safetensors"),
    ],
)
def test_an_import_of_something_else_says_so(
    client: TestClient, content: bytes, reason: str
) -> None:
    answer = client.post("/api/v1/adapters/import", files={"file": ("style.safetensors", content)})
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


@pytest.mark.parametrize(
    ("tag", "weights"),
    [
        ("<lora:chalk>", (1.0, 1.0)),
        ("<lora:chalk:0.8>", (0.8, 0.8)),
        ("<lora:chalk-v1:-0.5>", (-0.5, -0.5)),
        ("<LoRA:chalk-v1-bf16:0.25:0.75>", (0.75, 0.25)),
        ("<lora:chalk-v1-tags:0.8>", (0.8, 0.8)),
        ("<lora:chalk:te=0.25:unet=0.75>", (0.75, 0.25)),
        ("<lora:chalk:unet=0.75>", (0.75, 1.0)),
    ],
)
def test_a_prompt_names_adapters_as_a1111_does(
    client: TestClient, adapter: int, state: AppState, tag: str, weights: tuple[float, float]
) -> None:
    created = draw(client, prompt=f"a castle {tag}, chalk")
    assert created.status_code == 202
    with state.database.read() as session:
        render = session.get_one(Render, created.json()["id"])
    assert render.prompt == "a castle, chalk"
    (used,) = render.adapters
    assert (used["adapter_id"], used["version"]) == (adapter, 1)
    assert (used["weight"], used["text_encoder_weight"]) == weights


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [
        ("<lora:nobody:0.8>", "There is no such adapter"),
        ("<lora:chalk:strong>", "an invalid weight"),
        ("<lora:chalk:nan>", "an invalid weight"),
        ("<lora:chalk:1:1:1>", "more than two weights"),
        ("<lora:chalk-v9:1>", "has no version 9"),
        ("<lora:chalk:99>", "The weight is 99; weights from -10 to 10 are accepted."),
        ("<lora:>", "There is no such adapter"),
        ("<lora:chalk:0.8", "“<lora:chalk:0.8” has no end: write <lora:name:0.8>."),
        ("<lora:chalk:0.8 <lora:chalk:0.8>", "has no end"),
    ],
)
def test_a_tag_that_names_nothing_is_refused(
    client: TestClient, adapter: int, tag: str, sentence: str
) -> None:
    answer = draw(client, prompt=f"a castle {tag}")
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("shape", [Render, Recipe, RenderRequest, RenderOut])
def test_each_setting_of_an_image_is_asked_for_stored_and_answered(shape: Any) -> None:
    assert ImageSettings.model_fields.keys() <= shape.model_fields.keys()
