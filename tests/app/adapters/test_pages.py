"""The pages of adapters, as a browser without scripts gets them."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters import service
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.job_kinds.states import JobStatus
from app.registry.renders import service as playground
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.claims import end_io_job

HTML = {"accept": "text/html"}
FRAGMENT = HTML | {"hx-request": "true"}


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def end_import(state: AppState, status: JobStatus, **values: object) -> int:
    """An io worker ends the import that waits."""
    return end_io_job(
        state.database, lambda job: job.kind == "import_adapter", status, **values
    ).key


def test_an_empty_registry_says_how_to_get_an_adapter(client: TestClient) -> None:
    page = client.get("/adapters").text
    assert "No adapters yet" in page
    assert 'href="/train/new"' in page
    assert page.count('class="button main"') == 1


def test_cards_show_cover_base_trigger_word_and_versions(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Plain", trigger_word="")
    page = client.get("/adapters").text
    assert "2 adapters." in page
    assert 'data-copy="chalkboard"' in page
    assert "no trigger word needed" in page
    assert "SD 1.x (2)" in page  # the chip of the family with its count
    assert page.count('class="card adapter-card"') == 2
    assert "1 version" in page


def test_covers_of_imported_adapters_are_ordered_by_one_click(
    client: TestClient, state: AppState
) -> None:
    base = fake_workers.ready_base(state)
    imported = NewVersion("Bare", "sd1", "0" * 64, 1, 4, 4.0, details={"imported": "bare.st"})
    with state.database.write() as session:
        publish(session, replace(imported, base_model_id=base.key))
        publish(session, replace(imported, name="Elsewhere", base_family="sdxl"))
    fake_workers.adapter(state, "Chalk")
    page = client.get("/adapters").text
    assert page.count("trigger word not stated") == 2
    assert "Trigger word not stated." in client.get("/adapters/bare").text
    assert "Make covers for 2 adapters" in page
    told = client.post("/adapters/covers").text
    assert "1 cover ordered. 1 left out. “Elsewhere” was made for SDXL" in told
    assert "Make covers for 1 adapter<" in told
    assert re.search(r'id="covers"[^>]* data-poll[^>]*>.*?1 cover to draw…', told, re.S)
    (draft,) = fake_workers.draw(state)
    assert draft.prompt == "a castle"
    assert "to draw…" not in client.get("/adapters").text


def test_search_and_filters_live_in_the_address(client: TestClient, state: AppState) -> None:
    chalk = fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night", trigger_word="nightboard")
    client.post(f"/adapters/{chalk.slug}/star", data={"starred": "1"})
    client.post("/adapters/night", data={"tags": "dark, board"})
    assert "Night" not in client.get("/adapters?starred=1").text
    found = client.get("/adapters?q=nightboard&sort=name").text
    assert "1 adapter found." in found
    assert 'href="/adapters?q=nightboard&amp;base=sd1&amp;sort=name"' in found
    assert "Chalk" not in client.get("/adapters?tag=dark").text
    nothing = client.get("/adapters?q=%25&base=nonsense")
    assert "No adapter matches" in nothing.text
    assert client.get("/adapters?q=" + "x" * 500, headers=HTML).status_code == 422


def test_the_page_of_an_adapter_tells_everything_of_its_run(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    adapter = fake_workers.adapter(state)
    page = client.get(f"/adapters/{adapter.slug}").text
    for fact in (
        'href="/datasets/chalk"',
        "3 images",
        "starter",
        "281,000 of 19.3 M (1.5 %)",
        "0.6 MB fp16",
        "910 MB",
        "41 s",
        'href="/runs/1"',
        "&lt;lora:chalk-v1:1&gt; chalkboard",
        f"/api/v1/adapters/{adapter.key}/download?format=kohya&amp;dtype=fp16&amp;version=1",
        f"/api/v1/adapters/{adapter.key}/download?format=peft&amp;dtype=bf16&amp;version=1",
        'alt="a castle"',
    ):
        assert fact in page, fact
    assert client.get(f"/adapters/{adapter.slug}?v=9", headers=HTML).status_code == 404
    assert client.get("/adapters/none", headers=HTML).status_code == 404


def test_what_is_said_of_an_adapter_can_be_changed(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    change = {
        "name": "Chalk two",
        "trigger_words": "a, b ,a",
        "tags": "Old, new",
        "notes": "x\r\ny",
    }
    answer = client.post(f"/adapters/{adapter.slug}", data=change, follow_redirects=False)
    assert answer.status_code == 303
    with state.database.read() as session:
        row = service.get_adapter(session, adapter.key)
        assert (row.name, row.trigger_words, row.notes) == ("Chalk two", ["a", "b"], "x\ny")
        assert service.summary(session, row).tags == ["new", "old"]
    saved = client.post(f"/adapters/{adapter.slug}", data={"notes": "z"}, headers=FRAGMENT)
    assert "Saved" in saved.text
    assert "<html" not in saved.text


def test_the_form_stands_behind_edit_and_the_focus_comes_back(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    address = f"/adapters/{adapter.slug}"
    client.post(address, data={"notes": "<b>Soft"})
    page = client.get(address).text
    assert "&lt;b&gt;Soft</p>" in page
    assert "<textarea" not in page
    assert f'href="{address}?v=1&amp;edit=1#about"' in page  # works without a script
    form = client.get(f"{address}?v=1&edit=1").text
    assert 'name="name" autofocus=""' in form
    done = client.post(f"{address}?v=1&done=1", data={"name": "New name"}, headers=FRAGMENT).text
    assert 'hx-select="#about" hx-swap="outerHTML" autofocus>' in done
    assert '<h1 dir="auto">New name</h1>' in done
    assert 'id="adapter-head" hx-swap-oob="true"' in done
    refused = client.post(
        f"{address}?done=1", data={"tags": "t" * 41, "notes": "kept"}, headers=FRAGMENT
    )
    assert refused.status_code == 422
    assert 'aria-invalid="true" autofocus=""' in refused.text
    assert "kept</textarea>" in refused.text
    assert "adapter-head" not in refused.text


def test_the_page_leads_with_the_cover_and_the_samples(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    with state.database.read() as session:
        castle, rocket = service.version_samples(session, service.get_version(session, adapter))
    page = client.get(f"/adapters/{adapter.slug}").text
    lead = page[page.index('id="lead"') : page.index('id="about"')]
    assert lead.index(f'href="/media/{castle.sha256}"') < lead.index(rocket.sha256)
    assert lead.count("a castle") == 4  # large, its caption, among the samples
    assert "prompt=a+castle&amp;seed=0" in lead
    other = client.get(f"/adapters/{adapter.slug}?image={rocket.sha256}").text
    assert f'href="/media/{rocket.sha256}"' in other
    assert "Set as cover" in other
    unknown = client.get(f"/adapters/{adapter.slug}?image={'f' * 64}").text
    assert f'href="/media/{castle.sha256}"' in unknown


def test_an_image_is_hidden_or_deleted_and_that_is_undone(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    address = f"/adapters/{adapter.slug}"
    used = [{"id": adapter.key, "weight": 0.5}]
    key = client.post("/api/v1/renders", json={"prompt": "<i>fox", "adapters": used}).json()["id"]
    (render,) = fake_workers.draw(state)
    page = client.get(address).text
    assert "v1 · 0.5" in page
    assert "<i>fox" not in page
    for act, undo in (("hide", "show"), ("delete", "restore")):
        place = f"{address}/renders/{key}"
        removed = client.post(f"{place}/{act}", headers=FRAGMENT).text
        assert f'<li id="render-{key}" hidden></li>' in removed
        assert f'hx-post="{place}/{undo}"' in removed
        assert f'id="render-{key}"' not in client.get(address).text
        assert f'action="{place}/{undo}"' in client.get(f"{address}/hidden").text
        back = client.post(f"{place}/{undo}", headers=FRAGMENT).text
        assert "v1 · 0.5" in back
        plain = client.post(f"{place}/{act}")  # without a script
        assert str(plain.url).endswith(f"{address}#renders")
        assert f'action="{place}/{undo}"' in plain.text
        listed = client.post(f"{place}/{undo}", data={"back": "hidden"}, follow_redirects=False)
        assert listed.headers["location"] == f"{address}/hidden"
    with state.database.read() as session:
        (image,) = playground.render_images(session, render.key)
    client.post(f"{address}/cover", data={"sha256": image.sha256})
    removed = client.post(f"{address}/renders/{key}/delete", headers=FRAGMENT).text
    assert 'id="lead" hx-swap-oob="true"' in removed  # with the usual cover again
    assert "This image was deleted" in client.get(f"/renders/{key}").text
    assert client.post(f"{address}/renders/99/hide", headers=HTML).status_code == 404
    asked = client.get("/storage/forever/deleted-renders").text
    assert "1 render" in asked
    client.post("/storage/forever/deleted-renders")
    assert "No hidden images" in client.get(f"{address}/hidden").text


def test_a_wrong_change_comes_back_with_what_was_typed(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    change = {"name": "", "notes": "kept", "trigger_words": "y" * 61, "tags": "t" * 41}
    answer = client.post(f"/adapters/{adapter.slug}", data=change, headers=HTML)
    assert answer.status_code == 422
    assert "An adapter needs a name." in answer.text
    assert "At most 20 trigger words of at most 60 characters each." in answer.text
    assert "kept</textarea>" in answer.text
    late = client.post(f"/adapters/{adapter.slug}", data={"tags": "t" * 41}, headers=FRAGMENT)
    assert late.status_code == 422
    assert "Not saved. Use at most 20 tags" in late.text


def test_a_picture_of_the_adapter_becomes_its_cover_and_no_other(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    with state.database.read() as session:
        version = service.get_version(session, adapter)
        sha256 = service.version_samples(session, version)[1].sha256
    client.post(f"/adapters/{adapter.slug}/cover", data={"sha256": sha256})
    page = client.get("/adapters").text
    assert page.index(sha256) == page.index("/media/") + len("/media/")
    wrong = client.post(f"/adapters/{adapter.slug}/cover", data={"sha256": "f" * 64}, headers=HTML)
    assert wrong.status_code == 422
    assert "Only an image generated with this adapter" in wrong.text


def test_a_star_answers_with_itself_for_scripts(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    on = client.post(f"/adapters/{adapter.slug}/star", data={"starred": "1"}, headers=FRAGMENT)
    assert 'aria-pressed="true"' in on.text
    off = client.post(f"/adapters/{adapter.slug}/star", data={"starred": "0"}, headers=FRAGMENT)
    assert 'aria-pressed="false"' in off.text


def test_a_deleted_adapter_can_be_brought_back(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    page = client.post(f"/adapters/{adapter.slug}/delete").text
    assert f'action="/adapters/{adapter.key}/restore?back=%2Fadapters"' in page
    gone = client.get(f"/adapters/{adapter.slug}", headers=HTML)
    assert gone.status_code == 404
    assert "You can restore it on the page of deleted adapters" in gone.text
    run = client.get("/runs/1").text  # which trained it
    assert 'href="/adapters/deleted">The adapter was deleted' in run
    assert f'href="/adapters/{adapter.slug}' not in run
    assert client.post(f"/adapters/{adapter.key}/restore").status_code == 200
    assert f'href="/adapters/{adapter.slug}?v=1"' in client.get("/runs/1").text
    assert client.get(f"/adapters/{adapter.slug}").status_code == 200


def test_an_import_is_followed_until_its_adapter_is_there(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    page = client.post("/imports", files={"file": ("mine.safetensors", safetensors())}).text
    assert "mine.safetensors" in page
    assert 'hx-trigger="poll"' in page
    key = end_import(
        state, JobStatus.SUCCEEDED, result={"adapter_id": adapter.key, "duplicate": True}
    )
    done = client.get(f"/imports/{key}").text
    assert "is already here as" in done
    assert f'href="/adapters/{adapter.slug}"' in done
    assert "hx-trigger" not in done


def test_an_import_shows_how_far_it_is_and_can_be_canceled(
    client: TestClient, state: AppState
) -> None:
    client.post("/imports", files={"file": ("big.safetensors", safetensors())})
    with state.database.write() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "import_adapter")).one()
        job.status, job.result = JobStatus.RUNNING, {"done": 44, "total": 200}
        key = job.key
    shown = client.get(f"/imports/{key}").text
    assert "is being checked… 22 %" in shown
    assert f'hx-post="/imports/{key}/cancel"' in shown
    assert f'<noscript><a class="button quiet" href="/adapters?imported={key}">' in shown
    ending = client.post(f"/imports/{key}/cancel", headers=FRAGMENT).text
    assert "Canceling…" in ending
    assert 'hx-trigger="poll"' in ending
    with state.database.write() as session:
        session.get_one(IoJob, key).status = JobStatus.CANCELED
    assert "Canceled." in client.post(f"/imports/{key}/cancel").text  # without JavaScript


def test_an_import_that_became_a_version_names_it(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    client.post("/imports", files={"file": ("two.safetensors", safetensors())})
    key = end_import(state, JobStatus.SUCCEEDED, result={"adapter_id": adapter.key, "version": 2})
    done = client.get(f"/imports/{key}").text
    assert f'href="/adapters/{adapter.slug}?v=2">{adapter.name}, version 2</a>' in done


def test_all_imports_of_a_panel_are_canceled_at_once(client: TestClient, state: AppState) -> None:
    files = [("file", (f"{name}.safetensors", safetensors(), "")) for name in "abc"]
    client.post("/imports", files=files)
    adapter = fake_workers.adapter(state)
    done = end_import(state, JobStatus.SUCCEEDED, result={"adapter_id": adapter.key})
    page = client.get("/adapters?" + "&".join(f"imported={done + at}" for at in range(3))).text
    form = page[page.index('action="/imports/cancel"') :]
    keys = re.findall(r'name="import" value="(\d+)"', form)
    assert keys == [str(done + 1), str(done + 2)]  # the one that ended is not canceled
    answer = client.post("/imports/cancel", data={"import": [str(done), *keys]}, headers=FRAGMENT)
    states = re.findall(r'data-import-state="(\w+)"', answer.text)
    assert states == ["good", "canceled", "canceled"]
    page = client.post("/imports/cancel", data={"import": keys}).text  # without JavaScript
    assert "2 files: 2 canceled" in page
    assert client.post("/imports/cancel", data={"import": ["0"]}).status_code == 422
    assert client.post("/imports/cancel", data={"import": ["999"]}).status_code == 404


def test_settings_that_are_not_known_are_not_called_equal(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    new = NewVersion(
        name="x", base_family="sd1", sha256="e" * 64, size_bytes=10, rank=4, alpha=4,
        details={"imported": "two.safetensors"},
    )  # fmt: skip
    with state.database.write() as session:
        publish(session, new, adapter_id=adapter.key)
        session.get_one(Adapter, adapter.key).trigger_words = ["omoji"]
    page = client.get(f"/adapters/{adapter.slug}/compare?a=1&b=2").text
    assert "The settings cannot be compared: they are not known for both versions." in page
    assert "All known settings are equal" not in page
    for version, word in ((1, "chalkboard"), (2, "omoji")):  # the older one has its own
        page = client.get(f"/adapters/{adapter.slug}?v={version}").text
        head = page.partition('id="adapter-head"')[2].partition("</header>")[0]
        assert re.findall('data-copy="(.*?)"', head) == [word]


def test_versions_are_compared_by_their_samples_first(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    with state.database.write() as session:
        first = service.get_version(session, adapter)
        new = NewVersion(
            name="x", base_family="sd1", sha256="e" * 64, size_bytes=10, rank=4, alpha=4,
            run_id=first.run_id, steps=40,
        )  # fmt: skip
        only = client.get(f"/adapters/{adapter.slug}/compare").text
        assert "This adapter has only one version." in only
        publish(session, new, adapter_id=adapter.key)
        publish(session, replace(new, run_id=None, sha256="d" * 64), adapter_id=adapter.key)
    client.post(f"/adapters/{adapter.slug}/versions/1/use")
    assert "version 2 and version 3." in client.get(f"/adapters/{adapter.slug}/compare").text
    page = client.get(f"/adapters/{adapter.slug}/compare?a=1&b=2").text
    assert page.count('class="comparison" data-comparison>') == 2
    assert page.index('class="comparison"') < page.index('id="settings-title"')
    assert 'alt="a castle, version 2"' in page
    place = f"/api/v1/adapters/{adapter.key}/compare"
    pairs = client.get(f"{place}?a=1&b=2").json()["samples"]
    assert [pair["caption"] for pair in pairs] == ["a castle, seed 0", "a rocket, seed 1"]
    assert client.get(f"{place}?a=1&b=3").json()["samples"] == []
    none = client.get(f"/adapters/{adapter.slug}/compare?a=1&b=3").text
    assert "Samples are compared when both versions have some" in none
    assert '<details class="fold">' in none  # the hashes are folded


def test_a_file_that_another_adapter_has_makes_no_version_and_says_so(
    client: TestClient, state: AppState
) -> None:
    has_it, wanted = fake_workers.adapter(state, "Ink"), fake_workers.adapter(state)
    files = {"file": ("two.safetensors", safetensors())}
    client.post("/imports", files=files, data={"adapter": wanted.slug})
    result = {"adapter_id": has_it.key, "version": 1, "duplicate": True}
    key = end_import(state, JobStatus.SUCCEEDED, result=result)
    assert "Ink</a>, so no new version was created." in client.get(f"/imports/{key}").text


def test_an_import_that_failed_says_why(client: TestClient, state: AppState) -> None:
    client.post("/imports", files={"file": ("x.safetensors", safetensors())}, headers=FRAGMENT)
    key = end_import(state, JobStatus.FAILED, error="This file holds no LoRA.")
    assert "was not imported. This file holds no LoRA." in client.get(f"/imports/{key}").text
    assert client.get("/imports/999", headers=HTML).status_code == 404


def test_an_import_that_would_lose_much_asks_first(client: TestClient, state: AppState) -> None:
    client.post("/imports", files={"file": ("x.safetensors", safetensors())}, headers=FRAGMENT)
    key = end_import(state, JobStatus.FAILED, error="54 % would be lost.", error_code="loss")
    asking = client.get(f"/imports/{key}").text
    assert "54 % would be lost." in asking
    assert f'hx-post="/imports/{key}/allow-loss"' in asking
    assert "allow-loss" in client.post(f"/imports/{key}/allow-loss", headers=FRAGMENT).text
    agreed = client.post(f"/imports/{key}/allow-loss", data={"agree": "yes"}, headers=FRAGMENT)
    assert "is waiting to be checked" in agreed.text
    with state.database.read() as session:
        newest = max(session.exec(select(IoJob)), key=lambda job: job.key)
        assert newest.args["allow_loss"] is True
    plain = client.post(f"/imports/{key}/allow-loss", data={"agree": "yes"}, follow_redirects=False)
    assert plain.headers["location"] == f"/adapters?imported={newest.key + 1}"


def test_several_files_are_taken_in_one_by_one_with_what_lies_beside_them(
    client: TestClient, state: AppState
) -> None:
    sent = [
        ("file", ("one.safetensors", safetensors())),
        ("file", ("one.civitai.info", b"{}")),
        ("file", ("one.preview.png", b"\x89PNG")),
        ("file", ("two.safetensors", b"PK\x03\x04archive")),
        ("file", ("../../three.safetensors", safetensors() + b"x")),
        ("file", ("lonely.json", b"{}")),
    ]
    answer = client.post("/imports", files=sent, headers=FRAGMENT)
    assert answer.status_code == 200
    assert "<strong>one.safetensors</strong> was uploaded" in answer.text
    assert "<strong>three.safetensors</strong> was uploaded" in answer.text
    assert "<strong>two.safetensors</strong> was not imported. “two.safetensors” is a pickle" in (
        answer.text
    )
    assert "<strong>lonely.json</strong> was not imported. There is no .safetensors" in answer.text
    with state.database.read() as session:
        orders = session.exec(select(IoJob).where(IoJob.kind == "import_adapter")).all()
    assert [order.args["filename"] for order in orders] == ["one.safetensors", "three.safetensors"]
    beside = orders[0].args["sidecars"]
    assert [sidecar["name"] for sidecar in beside] == ["one.civitai.info", "one.preview.png"]
    assert "sidecars" not in orders[1].args


def test_without_scripts_every_import_is_shown(client: TestClient, state: AppState) -> None:
    sent = [("file", (f"{name}.safetensors", safetensors())) for name in ("one", "two")]
    answer = client.post("/imports", files=sent)
    assert answer.url.query == b"imported=1&imported=2" or answer.url.query.count(b"imported=") == 2
    assert "one.safetensors" in answer.text
    assert "two.safetensors" in answer.text
    assert "data-import-summary>2 files: 2 to go<" in answer.text
    end_import(state, JobStatus.FAILED, error="This file holds no LoRA.")
    page = client.get(str(answer.url)).text
    assert "data-import-summary>2 files: 1 not imported, 1 to go<" in page
    assert '<progress max="2" value="1"' in page
    adapter = fake_workers.adapter(state)
    known = {"adapter_id": adapter.key, "version": 1, "duplicate": True}
    end_import(state, JobStatus.SUCCEEDED, result=known)
    page = client.get(str(answer.url)).text
    assert "data-import-summary>2 files: 1 was here already, 1 not imported<" in page
    assert 'data-import-state="known"' in page
    assert 'id="import-panel" aria-label="Imports" hidden' in client.get("/adapters").text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (struct.pack("<Q", 200 * 2**20) + b'{"a"', "is truncated or damaged"),
        (safetensors()[:20], "is truncated or damaged"),
        (struct.pack("<Q", 9 * 2**20) + b'{"' + bytes(10 * 2**20), "at most 9 MB"),
    ],
)
def test_lying_and_cut_files_are_refused_before_they_are_stored(
    client: TestClient, state: AppState, content: bytes, sentence: str
) -> None:
    answer = client.post("/imports", files={"file": ("a.safetensors", content)}, headers=FRAGMENT)
    assert answer.status_code == 422
    assert sentence in answer.text
    with state.database.read() as session:
        assert session.exec(select(IoJob).where(IoJob.kind == "import_adapter")).all() == []


def test_what_was_not_exact_is_told_on_the_page(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    with state.database.write() as session:
        version = service.get_version(session, adapter)
        version.details = {
            "imported": "<b>x</b>.safetensors",
            "kinds": {"LoHa": 3},
            "namings": ["kohya"],
            "import_notes": ["3 LoHa modules were converted to LoRA (rank 16)."],
        }
        session.add(version)
    page = client.get(f"/adapters/{adapter.slug}").text
    assert "&lt;b&gt;x&lt;/b&gt;.safetensors, 3 modules of LoHa, named as kohya." in page
    assert "<li>3 LoHa modules were converted to LoRA (rank 16).</li>" in page
    answer = client.get(f"/api/v1/adapters/{adapter.key}").json()
    assert answer["import_notes"] == ["3 LoHa modules were converted to LoRA (rank 16)."]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.ckpt", b"\x80\x02ccollections", "is a pickle"),
        ("a.gguf", b"GGUF\x03\0\0\0{", "is a GGUF file, whose weights are rounded. Upload the"),
        ("a.ckpt", b"PK\x03\x04archive/data", "is a pickle"),
        ("a.safetensors", b"", "is empty"),
        ("a.safetensors", b"<html><body>", "is not a .safetensors file"),
        (None, None, "Choose a .safetensors file."),
    ],
)
def test_what_is_no_adapter_is_refused_with_its_reason(
    client: TestClient, name: str | None, content: bytes | None, reason: str
) -> None:
    files = {"file": (name, content)} if name else {"other": ("", b"")}
    for headers in (HTML, FRAGMENT):
        answer = client.post("/imports", files=files, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert reason in answer.text


def test_aliases_are_given_moved_and_taken_away_on_the_page(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    address = f"/adapters/{adapter.slug}"
    sent = client.post(
        f"{address}/aliases", data={"alias": "Best", "version": "1"}, follow_redirects=False
    )
    assert sent.headers["location"] == f"{address}?v=1#versions"
    page = client.get(f"{address}?v=best").text
    assert "Remove the alias best from version 1" in page
    assert "Make it “best”" not in page
    assert client.get(f"{address}?v=worst", headers=HTML).status_code == 404
    wrong = client.post(f"{address}/aliases", data={"alias": "<b>7", "version": "1"}, headers=HTML)
    assert wrong.status_code == 422
    assert 'value="&lt;b&gt;7"' in wrong.text
    assert "starting with a letter or digit" in wrong.text
    gone = client.post(f"{address}/aliases/remove", data={"alias": "best", "v": "1"})
    assert "Remove the alias" not in gone.text
    again = client.post(f"{address}/aliases/remove", data={"alias": "best"}, headers=HTML)
    assert again.status_code == 404


def test_active_filters_can_each_be_taken_away(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    client.post(f"/adapters/{adapter.slug}", data={"tags": "dark, <i>"})
    page = client.get("/adapters?q=chalk&tag=dark&base=sd1&sort=name").text
    for removed in (
        "/adapters?base=sd1&amp;sort=name&amp;tag=dark",
        "/adapters?q=chalk&amp;sort=name&amp;tag=dark",
        "/adapters?q=chalk&amp;base=sd1&amp;sort=name",
        "/adapters?sort=name",
    ):
        assert f'href="{removed}"' in page, removed
    assert "tag=dark&amp;tag=%3Ci%3E" in page  # another tag to add
    assert "<i>" not in page


def test_long_lists_of_versions_are_shortened_but_not_those_with_a_name(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    for rank in range(12):
        new = NewVersion(
            name="", base_family="sd1", sha256="0" * 64, size_bytes=1, rank=rank + 1, alpha=1
        )
        with state.database.write() as session:
            publish(session, new, adapter_id=adapter.key)
    client.post(f"/adapters/{adapter.slug}/aliases", data={"alias": "first", "version": "1"})
    page = client.get(f"/adapters/{adapter.slug}").text
    assert 'href="/adapters/chalk?v=1"' in page
    assert 'href="/adapters/chalk?v=2"' not in page
    assert "Show all 13 versions" in page
    assert 'href="/adapters/chalk?v=2"' in client.get("/adapters/chalk?versions=all").text


def test_a_new_run_can_be_the_next_version_of_an_adapter(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    page = client.get(f"/train/new?from=1&adapter={adapter.key}").text
    assert "Make this version 2 of <bdi>Chalk</bdi>" in page
    assert re.search(rf'name="adapter_id"[^>]* value="{adapter.key}"[^>]* checked>', page)
    form = {"dataset_id": "1", "base_model": "starter", "adapter_id": str(adapter.key)}
    sent = client.post("/train/new", data=form | {"name": "More"}, follow_redirects=False)
    assert sent.status_code == 303
    with state.database.read() as session:
        run = session.get_one(Run, int(sent.headers["location"].rpartition("/")[2]))
        assert run.adapter_id == adapter.key
    gone = client.post("/train/new", data=form | {"adapter_id": "99"}, headers=HTML)
    assert gone.status_code == 422
    assert "There is no such adapter" in gone.text


def test_try_it_proposes_a_prompt_with_a_trigger_word_of_the_adapter(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    used = [{"id": adapter.key}]

    def draw(prompt: str) -> None:
        client.post("/api/v1/renders", json={"prompt": prompt, "adapters": used})
        fake_workers.draw(state)

    draw("club suit, omoji")
    page = client.get(f"/adapters/{adapter.slug}").text
    assert 'href="/play?adapter=chalk&amp;prompt=a+castle%2C+chalkboard"' in page
    draw("a fox, Chalkboard")
    page = client.get(f"/adapters/{adapter.slug}").text
    assert 'href="/play?adapter=chalk&amp;prompt=a+fox%2C+Chalkboard"' in page
    with state.database.write() as session:
        session.get_one(Adapter, adapter.key).trigger_words = []
    page = client.get(f"/adapters/{adapter.slug}").text
    assert 'href="/play?adapter=chalk&amp;prompt=a+castle"' in page
