"""Adapters over REST: what the pages can do, with the same rules."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters import service
from app.registry.adapters.versions.create_version import (
    NewFile,
    NewVersion,
    adapter_of_parent,
    publish,
)
from app.registry.datasets import service as datasets
from app.registry.job_kinds.states import JobStatus
from app.registry.runs import service as runs
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.adapters.test_pages import end_import, safetensors

API = "/api/v1/adapters"


def second_version(state: AppState, adapter: Adapter, **config: object) -> None:
    """Another version, by a run with other settings on one more picture."""
    with state.database.write() as session:
        dataset = datasets.dataset_by_slug(session, adapter.slug)
        image = datasets.list_images(session, dataset.key)[0]
        datasets.caption_image(session, image.key, "a red fox")
    run = fake_workers.queued_run(state, dataset, **config)
    with state.database.write() as session:
        session.add(run)
        run.adapter_id = adapter.key
    training = fake_workers.FakeTraining(state)
    training.train(10)
    with state.database.write() as session:
        row = session.get_one(Run, run.key)
        new = NewVersion(
            name=row.name,
            base_family="sd1",
            sha256="5" * 64,
            size_bytes=2_000_000,
            rank=row.config["rank"],
            alpha=row.config["alpha"],
            run_id=row.key,
            dataset_version_id=row.dataset_version_id,
            base_model_id=row.base_model_id,
            trigger_words=["chalkboard"],
            config=row.config,
            steps=50,
            tensor_sha256="6" * 64,
            files=[NewFile("kohya", "fp16", "7" * 64, 800_000)],
        )
        publish(session, new, adapter_id=adapter_of_parent(session, row))


@pytest.fixture
def adapter(state: AppState) -> Adapter:
    """An adapter with two versions."""
    made = fake_workers.adapter(state)
    second_version(state, made, rank=32, alpha=32.0, flip=True)
    return made


def test_parts_are_linked_by_cursors(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        for number in range(5):
            new = NewVersion(
                name=f"style {number}", base_family="sd1", sha256="0" * 64, size_bytes=1, rank=1,
                alpha=1,
            )  # fmt: skip
            publish(session, new)
    seen, address = [], f"{API}?q=style&sort=name&tag=&limit=2"
    while address:
        answer = client.get(address)
        assert answer.headers["x-total-count"] == "5"
        seen += [row["name"] for row in answer.json()]
        address = answer.links.get("next", {}).get("url", "")
        if address:
            assert address.startswith(f"{API}?q=style&sort=name&")
    assert seen == [f"style {number}" for number in range(5)]


@pytest.mark.parametrize(
    "query",
    [
        "cursor=nonsense",
        "cursor=%00",
        "cursor=" + "x" * 5_000,
        "page=1",
        "limit=0",
        "limit=9999999999",
        "q=" + "x" * 10_000,
        "sort=random",
        "tag=" + "x" * 41,
        "&".join("tag=a" for _ in range(11)),
    ],
)
def test_what_no_list_can_be_asked_for_is_refused_with_its_reason(
    client: TestClient, query: str
) -> None:
    answer = client.get(f"{API}?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    page = client.get(f"/adapters?{query}", headers={"accept": "text/html"})
    assert page.status_code in (200, 422)  # a page takes an unknown order for the usual one


def test_odd_words_are_only_words(client: TestClient, adapter: Adapter) -> None:
    for q in ("%00", "🎨", "\u202e", "' OR 1=1 --", "\\", '"', "%", "*", "a" * 200):
        answer = client.get(f"{API}?q={quote(q)}&tag={quote(q[:20])}")
        assert (answer.status_code, answer.json()) == (200, [])


def test_tags_notes_and_license_take_any_script_and_are_never_markup(
    client: TestClient, adapter: Adapter
) -> None:
    body = {
        "tags": ["🎨", "שלום", "Grün"],
        "notes": "<script>alert(1)</script>\x07 & more",
        "license": 'CC-BY-4.0"><b>',
        "trigger_words": ["a\x1bb"],
    }
    answer = client.patch(f"{API}/{adapter.key}", json=body)
    assert answer.status_code == 200
    shown = answer.json()
    assert sorted(shown["tags"]) == sorted(["🎨", "שלום", "grün"])
    assert shown["notes"] == "<script>alert(1)</script> & more"
    assert shown["trigger_words"] == ["ab"]
    for tag in shown["tags"]:
        assert [row["id"] for row in client.get(f"{API}?tag={quote(tag)}").json()] == [adapter.key]
    page = client.get(f"/adapters/{adapter.slug}").text
    assert "<script>alert" not in page
    assert '"><b>' not in page
    assert client.patch(f"{API}/{adapter.key}", json={"license": "x" * 81}).status_code == 422


@pytest.mark.parametrize("name", ["license", "licence"])
def test_the_license_has_an_old_name_in_requests(
    client: TestClient, adapter: Adapter, name: str
) -> None:
    one = f"{API}/{adapter.key}"
    answer = client.patch(one, json={name: "MIT"}).json()
    assert (answer["license"], "licence" in answer) == ("MIT", False)
    sent = client.post(f"/adapters/{adapter.slug}", data={name: "CC0-1.0"}, follow_redirects=False)
    assert sent.status_code == 303
    assert client.get(one).json()["license"] == "CC0-1.0"
    both = client.patch(one, json={"licence": "MIT", "license": "Apache-2.0"})
    assert both.status_code == 422
    assert "“licence” is the old name of “license”" in both.text


def test_versions_are_found_by_number_and_alias(client: TestClient, adapter: Adapter) -> None:
    one = f"{API}/{adapter.key}"
    found = client.get(f"{one}/versions")
    assert [(row["version"], row["aliases"]) for row in found.json()] == [(2, ["latest"]), (1, [])]
    assert found.headers["x-total-count"] == "2"
    newest = client.get(f"{one}/versions?limit=1")
    older = client.get(newest.links["next"]["url"]).json()
    assert [row["version"] for row in older] == [1]
    assert older[0]["code_version"].count(".") >= 2
    set_ = client.put(f"{one}/aliases/Best", json={"version": 1})
    assert (set_.status_code, set_.json()) == (200, {"alias": "best", "version": 1})
    assert client.get(f"{one}/versions/best").json()["version"] == 1
    assert client.put(f"{one}/aliases/best", json={"version": "latest"}).json()["version"] == 2
    assert client.get(f"{one}/aliases").json() == [
        {"alias": "best", "version": 2},
        {"alias": "latest", "version": 2},
    ]
    assert client.delete(f"{one}/aliases/best").status_code == 204
    assert client.delete(f"{one}/aliases/best").status_code == 404
    assert client.delete(f"{one}/aliases/latest").status_code == 422
    assert client.get(f"{one}/versions/best").status_code == 404
    assert client.put(f"{one}/aliases/7", json={"version": 1}).status_code == 422
    assert client.put(f"{one}/aliases/x", json={"version": 9}).status_code == 404
    assert client.put(f"{one}/aliases/x", json={}).status_code == 422
    assert client.put(f"{API}/99/aliases/x", json={"version": 1}).status_code == 404


def test_a_download_goes_by_an_alias(client: TestClient, adapter: Adapter) -> None:
    client.put(f"{API}/{adapter.key}/aliases/best", json={"version": 1})
    file = client.get(f"{API}/{adapter.key}/download?version=best")
    assert file.status_code == 200
    assert 'filename="chalk-v1.safetensors"' in file.headers["content-disposition"]
    assert client.get(f"{API}/{adapter.key}/download?version=worst").status_code == 404
    assert client.get(f"{API}/{adapter.key}/download?version={'x' * 61}").status_code == 422


def test_a_picture_takes_an_alias_for_a_version(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    client.put(f"{API}/{adapter.key}/aliases/best", json={"version": 1})
    body = {"prompt": "a fox", "adapters": [{"id": adapter.key, "version": "best"}]}
    created = client.post("/api/v1/renders", json=body)
    assert created.status_code == 202
    with state.database.read() as session:
        assert session.get_one(Render, created.json()["id"]).adapters[0]["version"] == 1
    body["adapters"][0]["version"] = "worst"  # type: ignore[index]
    assert client.post("/api/v1/renders", json=body).status_code == 422
    page = client.get(f"/play?adapter={adapter.slug}@best:0.5").text
    assert f'value="{adapter.slug}@best"' in page


def test_two_versions_are_told_apart_by_what_changed(client: TestClient, adapter: Adapter) -> None:
    found = client.get(f"{API}/{adapter.key}/compare?a=1&b=latest").json()
    assert (found["a"], found["b"], found["same_weights"]) == (1, 2, None)
    settings = {row["name"]: (row["label"], row["a"], row["b"]) for row in found["settings"]}
    assert settings["rank"][1:] == (runs_rank(client, 1), 32)
    assert settings["flip"][1:] == (False, True)
    assert settings["steps"][1:] == (40, 50)  # that were trained
    words = {row["name"]: (row["a_words"], row["b_words"]) for row in found["settings"]}
    assert words["flip"] == ("off", "on")
    assert {row["name"] for row in found["data"]} == {"dataset_version"}
    assert found["notes"] == ["From version 1 to 2: 1 caption changed."]
    file = {row["name"]: row for row in found["file"]}
    assert file["kohya_fp16"]["b_words"].startswith("0.8 MB")
    assert file["tensor_sha256"]["a_words"] == "not known"
    assert client.get(f"{API}/{adapter.key}/compare").json() == found
    same = client.get(f"{API}/{adapter.key}/compare?a=2&b=2").json()
    assert (same["settings"], same["data"], same["file"], same["same_weights"]) == (
        [],
        [],
        [],
        True,
    )
    assert client.get(f"{API}/{adapter.key}/compare?a=9").status_code == 404
    page = client.get(f"/adapters/{adapter.slug}/compare?a=1&b=2").text
    for words_ in (settings["flip"][0], "1 caption changed", "0.8 MB"):
        assert words_ in page


def test_too_many_tags_are_counted_in_the_error(client: TestClient, adapter: Adapter) -> None:
    answer = client.patch(f"{API}/{adapter.key}", json={"tags": ["ink"] * 51})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "tags: Too many entries: 51 given, at most 20 allowed."


def runs_rank(client: TestClient, run: int) -> int:
    return int(client.get(f"/api/v1/runs/{run}").json()["config"]["rank"])


def test_a_version_is_trained_again_on_the_pictures_it_had(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    answer = client.post(f"{API}/{adapter.key}/versions/1/again")
    assert answer.status_code == 202
    assert answer.json()["warnings"] == [
        "The dataset “Chalk” changed since: 1 caption changed. This run trains on the 3 images as "
        "they were in the first run."
    ]
    with state.database.read() as session:
        first, again = session.get_one(Run, 1), session.get_one(Run, answer.json()["id"])
        assert again.config == first.config
        assert again.dataset_version_id == first.dataset_version_id
        assert adapter_of_parent(session, again) == adapter.key
        told = [event.data["text"] for event in runs.run_events(session, again.key) if event.data]
    assert "Repeats run 1 with the same settings." in told
    same = client.post(f"{API}/{adapter.key}/versions/2/again")
    assert same.json()["warnings"] == []
    page = client.post(
        f"/adapters/{adapter.slug}/again", data={"version": "1"}, follow_redirects=False
    )
    assert page.headers["location"].startswith("/runs/")
    assert "changed since: 1 caption changed." in client.get(page.headers["location"]).text


def test_an_imported_version_cannot_be_trained_again(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        new = NewVersion(
            name="Bought", base_family="sd1", sha256="0" * 64, size_bytes=1, rank=1, alpha=1
        )
        key = publish(session, new).adapter_id
    answer = client.post(f"{API}/{key}/versions/latest/again")
    assert answer.status_code == 422
    assert "was not trained here" in answer.json()["detail"]


def test_a_run_is_told_which_adapter_it_makes_a_version_of(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    body = {"dataset_id": 1, "preset": "quick", "adapter_id": adapter.key}
    made = client.post("/api/v1/runs", json=body)
    assert made.status_code == 202
    with state.database.read() as session:
        run = session.get_one(Run, made.json()["id"])
        assert adapter_of_parent(session, run) == adapter.key
    wrong = client.post("/api/v1/runs", json=body | {"adapter_id": 99})
    assert wrong.status_code == 422
    assert [row["field"] for row in wrong.json()["errors"]] == ["adapter_id"]


def test_an_import_is_ordered_as_the_next_version(
    client: TestClient, state: AppState, adapter: Adapter
) -> None:
    file = {"file": ("mine.safetensors", safetensors())}
    sent = client.post("/imports", files=file, data={"adapter": adapter.slug})
    assert sent.status_code == 200
    with state.database.read() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "import_adapter")).one()
        assert job.args["adapter_id"] == adapter.key
    missing = client.post("/api/v1/adapters/import", files=file, data={"adapter_id": "99"})
    assert missing.status_code == 404


def test_an_import_that_takes_long_is_asked_for_by_its_id(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    places = []
    for _ in range(2):
        sent = client.post(f"{API}/import", files={"file": ("mine.safetensors", safetensors())})
        assert sent.status_code == 503
        place = sent.headers["location"]
        assert place == f"{API}/imports/{sent.json()['import_id']}"
        assert place in sent.json()["detail"]
        assert sent.json()["type"] == "urn:brushwork:problem:not_ready"
        places.append(place)
        waiting = client.get(place).json()
        assert (waiting["status"], waiting["adapter_id"]) == ("queued", None)
    told = {"adapter_id": 7, "version": 1, "duplicate": False, "notes": ["A bias was left out."]}
    first = end_import(state, JobStatus.SUCCEEDED, result=told)
    second = end_import(state, JobStatus.FAILED, error="This file holds no LoRA.")
    assert client.get(places[0]).json() == told | {
        "id": first, "status": "succeeded", "progress": 1.0, "error": None,
        "loss": None, "needs_consent": False, "waits_for": None,
    }  # fmt: skip
    assert client.get(places[1]).json() == {
        "id": second, "status": "failed", "progress": 0.0, "adapter_id": None, "version": None,
        "duplicate": False, "notes": [], "error": "This file holds no LoRA.",
        "loss": None, "needs_consent": False, "waits_for": None,
    }  # fmt: skip
    assert client.get(f"{API}/imports/99").status_code == 404
    with state.database.write() as session:
        other = service.order_file(session, 1)
    assert client.get(f"{API}/imports/{other.key}").status_code == 404


def test_a_loss_is_told_and_allowed_by_its_id_or_from_the_beginning(
    client: TestClient, state: AppState
) -> None:
    client.post("/imports", files={"file": ("loha.safetensors", safetensors())})
    told = {"error": "54 % would be lost.", "error_code": "loss", "result": {"loss": 0.54}}
    key = end_import(state, JobStatus.FAILED, **told)
    failed = client.get(f"{API}/imports/{key}").json()
    assert (failed["loss"], failed["needs_consent"]) == (0.54, True)
    again = client.post(f"{API}/imports/{key}/allow-loss")
    assert (again.status_code, again.json()["status"]) == (202, "queued")
    with state.database.read() as session:
        args = session.get_one(IoJob, again.json()["id"]).args
        assert args == session.get_one(IoJob, key).args | {"allow_loss": True}
    other = client.post(f"{API}/imports/{again.json()['id']}/allow-loss")
    assert (other.status_code, other.json()["detail"]) == (
        409,
        "This import does not wait for your consent.",
    )


def test_a_file_can_be_sent_with_consent_to_its_loss(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    file = {"file": ("loha.safetensors", safetensors())}
    client.post(f"{API}/import", files=file, data={"allow_loss": "true"})
    with state.database.read() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "import_adapter")).one()
        assert job.args["allow_loss"] is True


def test_a_text_in_place_of_a_file_says_so(client: TestClient) -> None:
    sent = client.post(f"{API}/import", data={"file": "style.safetensors"})
    assert sent.status_code == 422
    assert sent.json()["detail"] == "file: This must be a file, not text."


def test_an_import_can_be_canceled(client: TestClient, state: AppState) -> None:
    client.post("/imports", files={"file": ("mine.safetensors", safetensors())})
    with state.database.read() as session:
        key = session.exec(select(IoJob).where(IoJob.kind == "import_adapter")).one().key
    canceled = client.post(f"{API}/imports/{key}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (202, "canceled")
    assert client.post(f"{API}/imports/99/cancel").status_code == 404


def test_a_cover_is_set_over_rest_too(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    with state.database.read() as session:
        version = service.get_version(session, service.get_adapter(session, adapter.key))
        sha256 = service.version_samples(session, version)[1].sha256
    changed = client.patch(f"{API}/{adapter.key}", json={"cover_sha256": sha256})
    assert changed.json()["cover_sha256"] == sha256
    assert changed.json()["cover_url"] == f"/media/{sha256}"
    assert changed.json()["cover_thumbnail_url"] == f"/media/{sha256}/small"
    wrong = client.patch(f"{API}/{adapter.key}", json={"cover_sha256": "f" * 64})
    assert wrong.status_code == 422
    assert wrong.json()["detail"].startswith("Only an image generated with this adapter")
    usual = client.patch(f"{API}/{adapter.key}", json={"cover_sha256": None}).json()
    assert usual["cover_url"] not in (None, f"/media/{sha256}")
    assert client.patch(f"{API}/{adapter.key}", json={"notes": "x"}).json() == usual | {
        "notes": "x"
    }


def test_renders_are_hidden_and_deleted_over_rest(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    body = {"prompt": "fox", "seed": 1, "adapters": [{"id": adapter.key}]}
    key = client.post("/api/v1/renders", json=body).json()["id"]
    assert client.delete(f"/api/v1/renders/{key}").status_code == 409
    fake_workers.draw(state)
    place = f"{API}/{adapter.key}/renders"
    assert client.patch(f"{place}/{key}", json={"hidden": True}).json()["hidden"] is True
    assert client.get(place).json() == []
    assert [row["id"] for row in client.get(f"{place}?hidden=true").json()] == [key]
    assert client.patch(f"{place}/{key}", json={"hidden": False}).status_code == 200
    assert client.patch(f"{place}/99", json={"hidden": True}).status_code == 404
    gone = client.delete(f"/api/v1/renders/{key}").json()
    assert client.get(gone["deleted"]).json()["deleted_at"]
    assert client.get(place).json() == []
    for _ in range(2):  # restoring twice is no error
        assert client.post(gone["restore"]).json()["deleted_at"] is None
    assert [row["id"] for row in client.get(place).json()] == [key]


def test_pictures_come_a_few_at_a_time(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.renders.adapter_images.IMAGES_A_PAGE", 2)
    adapter = fake_workers.adapter(state)
    other = fake_workers.adapter(state, "Other")
    for seed in range(5):
        used = [{"id": adapter.key}, {"id": other.key}] if seed == 2 else [{"id": adapter.key}]
        body = {"prompt": f"fox {seed}", "seed": seed, "adapters": used}
        assert client.post("/api/v1/renders", json=body).status_code == 202
    drawn = fake_workers.draw(state)
    assert [row["id"] for row in client.get(f"{API}/{other.key}/renders").json()] == [drawn[2].key]
    first = client.get(f"{API}/{adapter.key}/renders?limit=2")
    newest = first.json()
    assert [row["prompt"] for row in newest] == ["fox 4", "fox 3"]
    assert newest[0]["thumbnail_url"] == f"{newest[0]['url']}/small"
    rest = client.get(first.links["next"]["url"].replace("limit=2", "limit=9")).json()
    assert [row["prompt"] for row in rest] == ["fox 2", "fox 1", "fox 0"]
    page = client.get(f"/adapters/{adapter.slug}").text
    assert 'dir="auto">fox 3<' in page
    assert 'dir="auto">fox 2<' not in page
    older = client.get(f"/adapters/{adapter.slug}/pictures?before={newest[-1]['id']}").text
    assert 'dir="auto">fox 2<' in older
    assert 'dir="auto">fox 0<' not in older
    last = client.get(f"/adapters/{adapter.slug}?before={rest[1]['id']}").text
    assert 'dir="auto">fox 0<' in last
    assert "Older images" not in last
