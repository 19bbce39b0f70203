"""The page and the REST API on which a model writes captions: form, preview, proposals, undo."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.config import Settings
from app.registry.datasets import service
from app.registry.datasets.auto_caption import providers
from app.registry.datasets.auto_caption.proposals import apply_proposals, store_proposals
from app.registry.job_kinds.caption_kinds import CaptionImagesArgs, PreviewCaptionArgs
from app.registry.state import AppState
from app.registry.tables.datasets import CaptionProposal, Image
from app.registry.tables.jobs import IoJob
from app.web.datasets.auto_caption.view import marked
from tests.app.datasets.test_service import picture
from tests.caption_servers import CaptionServer, caption_server
from worker.core.captioning.words import CaptionMode

PAGE = "/datasets/chalk/captions/auto"
API = "/api/v1/datasets/1/captions"
PART = {"hx-request": "true"}
OLLAMA = {"provider": "ollama", "ollama_model": "bakllava", "prompt": "Say it", "do_not_name": "x"}


@pytest.fixture
def state(app: FastAPI, caption_settings: Settings) -> AppState:
    """A dataset of two images, one with a caption, on a server with an Ollama server."""
    names = ("ollama_url", "ollama_model")
    told = {name: getattr(caption_settings, name) for name in names}
    state: AppState = app.state.brushwork
    settings = state.settings.model_copy(update=told)
    app.state.brushwork = state = dataclasses.replace(state, settings=settings)
    with state.database.write() as session:
        dataset = service.create_dataset(session, "Chalk", trigger_word="chalk")
        service.add_images(session, dataset.key, [picture(0, "a fox"), picture(1)])
    return state


def jobs(state: AppState) -> list[IoJob]:
    with state.database.read() as session:
        return [
            job
            for job in session.exec(select(IoJob).order_by(IoJob.id))  # type: ignore[arg-type]
            if job.kind in ("caption_images", "preview_caption")
        ]


def finish(state: AppState, status: str = "succeeded", **result: object) -> IoJob:
    """The newest job, as if a worker had ended it."""
    with state.database.write() as session:
        job = session.get_one(IoJob, jobs(state)[-1].key)
        job.status, job.result = status, result
        session.add(job)
    return job


def propose(state: AppState, mode: str, *rows: tuple[str, str]) -> None:
    """The result of the newest order: state and text, for each image."""
    with state.database.write() as session:
        for image, (given, text) in zip(service.list_images(session, 1), rows, strict=True):
            row = CaptionProposal(
                job_id=jobs(state)[-1].key,
                image_id=image.key,
                mode=mode,
                state=given,
                caption=text if given == "proposed" else "",
                note="" if given == "proposed" else text,
                source_name="Ollama llava",
                seen_version=image.caption_version,
            )
            store_proposals(session, [row])


def captions(state: AppState) -> list[str]:
    with state.database.read() as session:
        return [image.caption for image in service.list_images(session, 1)]


@pytest.fixture
def ollama(
    app: FastAPI, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CaptionServer]:
    """An Ollama of this machine that nobody configured, with two models that see images."""
    settings = state.settings.model_copy(update={"ollama_url": None, "ollama_model": ""})
    app.state.brushwork = dataclasses.replace(state, settings=settings)
    with caption_server() as server:
        monkeypatch.setattr(providers, "LOCAL_OLLAMA", server.url)
        server.models = {"blind": None, "llava": None, "qwen-vl:7b": ["vision"]}
        yield server


def test_an_ollama_on_this_machine_is_offered_and_gets_no_image_unasked(
    ollama: CaptionServer, state: AppState, client: TestClient
) -> None:
    text = client.get(PAGE).text
    assert "Ollama on this machine" in text
    assert 'id="provider-builtin" checked' in text
    named = re.search(r'<select id="field-ollama_model".*?</select>', text, re.S)
    assert named is not None
    assert re.findall(r'<option value="([^"]*)"', named[0]) == ["llava", "qwen-vl:7b"]
    listed = client.get(f"{API}/providers").json()["providers"][2]
    assert (listed["models"], listed["problem"]) == (["llava", "qwen-vl:7b"], "")
    asked = len(ollama.paths)
    client.get("/datasets/chalk")
    sent = OLLAMA | {"ollama_model": "qwen-vl:7b"}
    assert client.post(PAGE, data=sent, follow_redirects=False).status_code == 303
    args = jobs(state)[-1].arguments(CaptionImagesArgs)
    assert (args.address, args.model) == (ollama.url, "qwen-vl:7b")
    refused = client.post(PAGE, data=OLLAMA | {"ollama_address": "http://127.0.0.1:9"})
    assert (refused.status_code, len(jobs(state))) == (422, 1)
    assert ollama.requests == []
    assert ollama.paths[asked:].count("/api/tags") == 1  # of the page that refused


@pytest.mark.parametrize("fault", ["silent", "slow", "html", "500", "redirect", "other", "big"])
def test_what_is_no_ollama_is_not_offered(
    ollama: CaptionServer, client: TestClient, fault: str
) -> None:
    ollama.faults = [fault]
    assert "No Ollama runs on this machine" in client.get(PAGE).text


def test_an_ollama_without_a_model_that_sees_says_so_and_one_may_be_left_alone(
    ollama: CaptionServer, app: FastAPI, client: TestClient
) -> None:
    ollama.models = {"blind": None}
    assert "No model of Ollama on this machine sees images" in client.get(PAGE).text
    state, asked = app.state.brushwork, len(ollama.paths)
    settings = state.settings.model_copy(update={"ollama_local": False})
    app.state.brushwork = dataclasses.replace(state, settings=settings)
    assert "set BRUSHWORK_OLLAMA_URL to its address" in client.get(PAGE).text
    assert "BRUSHWORK_OLLAMA_URL" in client.post(PAGE, data=OLLAMA).text
    assert len(ollama.paths) == asked


def test_the_form_has_what_is_configured_then_what_was_asked_last(
    state: AppState, client: TestClient
) -> None:
    assert f'href="{PAGE}"' in client.get("/datasets/chalk").text
    text = client.get(PAGE).text
    assert 'id="provider-ollama" checked' in text
    assert "BRUSHWORK_OPENAI_URL" in text
    assert "chalk, style" in text
    assert "Fill empty captions (1)" in text
    answer = client.post(PAGE, data=OLLAMA | {"write": "true"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}#results")
    (job,) = jobs(state)
    args = job.arguments(CaptionImagesArgs)
    assert (args.model, args.prompt, args.do_not_name, args.write) == (
        "bakllava",
        "Say it",
        ("x",),
        True,
    )
    text = client.get(PAGE).text
    assert "bakllava" in text
    assert 'hx-trigger="poll"' in text
    refused = client.post(PAGE, data=OLLAMA)
    assert refused.status_code == 409
    assert "Wait until that ends" in refused.text


def test_an_error_stands_beside_its_field_and_nothing_typed_is_lost(
    state: AppState, client: TestClient
) -> None:
    answer = client.post(PAGE, data=OLLAMA | {"ollama_model": "x" * 201, "prompt": "My prompt"})
    assert answer.status_code == 422
    assert 'id="field-ollama_model-error"' in answer.text
    assert "My prompt" in answer.text
    assert client.post(PAGE, data={"provider": "openai"}).status_code == 422
    assert client.post(PAGE, data={"provider": "dance"}).status_code == 422
    part = client.post(f"{PAGE}/preview", data=OLLAMA | {"prompt": " "}, headers=PART)
    assert (part.status_code, part.headers["hx-retarget"]) == (422, "#auto-form")
    assert jobs(state) == []


def test_one_image_is_tried_first(state: AppState, client: TestClient) -> None:
    sent = OLLAMA | {"sample": "2"}
    answer = client.post(f"{PAGE}/preview", data=sent, follow_redirects=False)
    job = jobs(state)[0]
    assert job.arguments(PreviewCaptionArgs).image_id == 2
    assert answer.headers["location"] == f"{PAGE}?preview={job.id}#preview"
    assert "Waiting for a worker" in client.get(answer.headers["location"]).text
    finish(state, caption="a boat", title="Ollama llava", removed=["ink"])
    part = client.get(f"{PAGE}/previews/{job.id}").text
    assert "a boat" in part
    assert "not named: ink" in part
    assert "poll" not in part
    assert captions(state) == ["a fox", ""]
    assert client.get(f"{PAGE}/previews/999").status_code == 404


def test_file_names_are_tried_and_written_at_once(state: AppState, client: TestClient) -> None:
    with state.database.write() as session:
        session.get_one(Image, 2).filename = "red_fox-02.png"
    names = {"provider": "filename", "mode": "fill", "write": "true"}
    tried = client.post(f"{PAGE}/preview", data=names | {"sample": "2"}, headers=PART).text
    assert "red fox" in tried
    assert "poll" not in tried
    text = client.post(PAGE, data=names).text
    assert "1 caption written" in text
    assert captions(state) == ["a fox", "red fox"]
    order = client.post(f"{API}/orders", json={"provider": "filename", "mode": "replace"}).json()
    assert (order["status"], order["captioned"], order["empty"]) == ("succeeded", 1, 1)


def test_a_preview_says_that_the_model_saw_nothing_or_that_it_failed(
    state: AppState, client: TestClient
) -> None:
    for status, result, page in (
        ("succeeded", {"note": "Not sure enough."}, "No caption: Not sure enough."),
        ("failed", {}, "It broke off."),
    ):
        key = client.post(f"{API}/previews", json={"image_id": 2}).json()["id"]
        finish(state, status, **result)
        with state.database.write() as session:
            session.get_one(IoJob, key).error = "It broke off." if status == "failed" else None
        shown = client.get(f"{API}/previews/{key}").json()
        assert (shown["status"], shown["caption"], shown["note"]) == (
            status,
            "",
            result.get("note", ""),
        )
        assert shown["error"] == ("It broke off." if status == "failed" else None)
        text = client.get(f"{PAGE}/previews/{key}").text
        assert page in text
        assert ("field-error" in text) == (status == "failed")


def test_changes_are_marked_applied_and_undone(state: AppState, client: TestClient) -> None:
    client.post(PAGE, data=OLLAMA | {"mode": "append"})
    propose(state, CaptionMode.APPEND, ("proposed", "in snow"), ("failed", "It was cut off."))
    assert "Cancel" in client.get(f"{PAGE}/results").text
    assert client.post(f"{PAGE}/orders/{jobs(state)[0].id}/cancel", headers=PART).status_code == 200
    text = client.get(PAGE).text
    assert "a fox<ins>, in snow</ins>" in text
    assert "It was cut off." in text
    assert "Continue with 1 image" in text
    answer = client.post(
        f"{PAGE}/proposals",
        data={"decision": "apply", "proposal": "1-1"},
        follow_redirects=False,
    )
    assert captions(state) == ["a fox, in snow", ""]
    text = client.get(answer.headers["location"]).text
    assert "1 caption written." in text
    client.post(f"{PAGE}/undo", data={"edit": "1"})
    assert captions(state) == ["a fox", ""]
    assert client.post(f"{PAGE}/proposals", data={"decision": "?"}).status_code == 422
    client.post(f"{PAGE}/orders/{jobs(state)[0].id}/continue")
    assert jobs(state)[-1].arguments(CaptionImagesArgs).image_ids == (2,)


def test_what_is_left_of_an_order_without_deleted_images_is_offered(
    state: AppState, client: TestClient
) -> None:
    client.post(PAGE, data=OLLAMA | {"mode": "replace"})
    propose(state, CaptionMode.REPLACE, *[("failed", "It was cut off.")] * 2)
    one = f"{PAGE}/orders/{jobs(state)[0].id}"
    client.post(f"{one}/cancel")
    assert "Continue with 2 images" in client.get(PAGE).text
    for image_id, rest in ((1, "Continue with 1 image"), (2, "2 failed")):
        with state.database.write() as session:
            service.delete_image(session, image_id)
        assert rest in client.get(PAGE).text
    text = client.get(PAGE).text
    assert "Continue" not in text
    assert "It was cut off." not in text
    assert client.post(f"{one}/continue").status_code == 409


def test_an_image_that_got_a_caption_is_not_left_to_be_filled(
    state: AppState, client: TestClient
) -> None:
    client.post(PAGE, data=OLLAMA)
    client.post(f"{PAGE}/orders/{jobs(state)[0].id}/cancel")
    assert "Continue with 1 image" in client.get(PAGE).text
    with state.database.write() as session:
        service.caption_image(session, 2, "an owl")
    assert "Continue" not in client.get(PAGE).text


def test_captions_that_have_little_in_common_are_shown_one_after_the_other() -> None:
    pieces = marked("automobile, chalkboard style", "an owl on a branch")
    assert [piece.text for piece in pieces] == [
        "automobile, chalkboard style",
        " ",
        "an owl on a branch",
    ]
    assert [piece.text for piece in marked("a fox", "a red fox")] == ["a ", "red ", "fox"]


def test_captions_that_an_order_wrote_can_be_undone(state: AppState, client: TestClient) -> None:
    client.post(PAGE, data=OLLAMA | {"write": "true"})
    propose(state, CaptionMode.FILL, ("skipped", ""), ("proposed", "an owl"))
    with state.database.write() as session:
        edit_id = apply_proposals(session, 1).edit_id
    finish(state, done=1, total=1, written=1, edit_id=edit_id)
    text = client.get(PAGE).text
    assert "1 caption written" in text
    assert f'name="edit" value="{edit_id}"' in text
    client.post(f"{PAGE}/undo", data={"edit": str(edit_id)})
    assert captions(state) == ["a fox", ""]
    assert 'name="edit"' not in client.get(PAGE).text


def test_an_undo_of_captions_that_were_changed_since_is_offered_again(
    state: AppState, client: TestClient
) -> None:
    client.post(PAGE, data=OLLAMA)
    propose(state, CaptionMode.FILL, ("skipped", ""), ("proposed", "an owl"))
    client.post(f"{PAGE}/proposals", data={"decision": "apply_all"})
    with state.database.write() as session:
        service.caption_image(session, 2, "mine")
    text = client.post(f"{PAGE}/undo", data={"edit": "1"}).text
    assert "Nothing was undone." in text
    assert "1 caption changed since stayed." in text
    assert 'name="edit" value="1"' in text
    assert captions(state) == ["a fox", "mine"]


def test_a_caption_that_was_changed_stays_until_its_proposal_is_ticked_beside_it(
    state: AppState, client: TestClient
) -> None:
    client.post(PAGE, data=OLLAMA | {"mode": "replace"})
    propose(state, CaptionMode.REPLACE, ("proposed", "an owl"), ("proposed", "a cat"))
    finish(state)
    sent = ticked(client)
    assert sent["proposal"] == ["1-1", "2-0"]
    with state.database.write() as session:
        service.caption_image(session, 1, "mine")
    for decision in ("apply", "apply", "apply_all"):  # a double click, and a second tab
        text = client.post(f"{PAGE}/proposals", data=sent | {"decision": decision}).text
        assert "1 caption was changed meanwhile and left alone. 1 proposal kept" in text
        assert captions(state) == ["mine", "a cat"]
    assert "<del>mine</del> <ins>an owl</ins>" in text
    assert ticked(client) == {"proposal": []}
    assert 'value="1-2"' in text
    for pattern in ("1", "1-", "x-1"):
        refused = client.post(f"{PAGE}/proposals", data={"decision": "apply", "proposal": pattern})
        assert refused.status_code == 422
    client.post(f"{PAGE}/proposals", data={"decision": "apply", "proposal": "1-2"})
    assert captions(state) == ["an owl", "a cat"]


def ticked(client: TestClient) -> dict[str, list[str]]:
    """The boxes of the page that are ticked when it comes."""
    boxes = re.findall(r'name="proposal" value="([^"]*)"[^>]* checked>', client.get(PAGE).text)
    return {"proposal": boxes}


@pytest.mark.parametrize("mode", list(CaptionMode))
def test_a_request_to_apply_that_is_repeated_replaces_nothing_written_by_hand(
    state: AppState, client: TestClient, mode: CaptionMode
) -> None:
    client.post(f"{API}/orders", json={"mode": mode, "image_ids": [2]})
    propose(state, mode, ("skipped", ""), ("proposed", "an owl"))
    finish(state)
    client.patch("/api/v1/images/2", json={"caption": "MINE"})
    kept = int(mode != "fill")
    for changed_meanwhile in (1, kept, kept):
        applied = client.post(f"{API}/proposals/apply", json={}).json()
        assert (applied["changed"], applied["still_proposed"]) == (0, kept)
        assert applied["changed_meanwhile"] == changed_meanwhile
    assert captions(state)[1] == "MINE"
    listed = client.get(f"{API}/proposals").json()
    assert [one["changed_meanwhile"] for one in listed] == [True] * kept
    for one in listed:
        now = one["caption_version"]
        for version, changed in ((now - 1, 0), (now, 1), (now, 0)):
            seen = [{"id": one["id"], "caption_version": version}]
            applied = client.post(f"{API}/proposals/apply", json={"seen": seen}).json()
            assert applied["changed"] == changed
        assert captions(state)[1] == one["after"]


def guess(state: AppState, *confidences: float) -> None:
    """Images were added, and the newest order was too unsure of them."""
    with state.database.write() as session:
        new = [picture(10 + n) for n in range(len(confidences))]
        added = [row.image for row in service.add_images(session, 1, new)]
        for n, (image, confidence) in enumerate(zip(added, confidences, strict=True)):
            row = CaptionProposal(
                job_id=jobs(state)[-1].key,
                image_id=image.key,
                state="empty",
                guess=f"church {n}",
                confidence=confidence,
                source_name="Built in",
            )
            store_proposals(session, [row])
    finish(state, done=2, total=2, written=0)


def test_guesses_are_chips_that_write_in_one_click(state: AppState, client: TestClient) -> None:
    client.post(PAGE, data={"provider": "builtin"})
    guess(state, 0.41, 0.68)
    text = client.get(PAGE).text
    assert text.index("68 %") < text.index("41 %")
    assert "2 guesses, too unsure" in text
    assert "Images without a caption" not in text
    (action,) = set(re.findall(rf'action="({PAGE}/orders/\d+/guesses)"', text))
    part = client.post(action, data={"guess": "2"}, headers=PART).text
    assert captions(state) == ["a fox", "", "", "church 1"]
    assert "1 guess, too unsure" in part
    assert "Wrote 1 caption with “Built in”." in part
    assert re.search(r"Captions written.*church 1", part, re.DOTALL)
    edit = re.findall(r'name="edit" value="(\d+)"', part)[0]
    undone = client.post(f"{PAGE}/undo", data={"edit": edit}).text
    assert "2 guesses, too unsure" in undone
    assert "Captions written" not in undone
    assert captions(state) == ["a fox", "", "", ""]
    page = client.post(action, data={"guess": "1"}).text
    assert "1 caption written." in page
    assert "Wrote 1 caption with “Built in”." in page


def test_guesses_above_a_percentage_are_shown_then_written(
    state: AppState, client: TestClient
) -> None:
    client.post(PAGE, data={"provider": "builtin"})
    guess(state, 0.57, 0.68, 0.41)
    for address in (f"{PAGE}?above=57", f"{PAGE}/results?above=57"):
        text = client.get(address).text
        assert text.count("<ins>church") == 2
        assert "Write 2 captions" in text
        assert "<strong>2 above</strong>, 1 below" in text
    assert captions(state) == ["a fox", "", "", "", ""]
    action = f"{PAGE}/orders/{jobs(state)[-1].key}/guesses"
    client.post(action, data={"above": "57"})
    assert captions(state) == ["a fox", "", "church 0", "church 1", ""]
    assert "Write" in client.get(f"{PAGE}?above=0").text
    assert client.post(action, data={}).status_code == 422
    assert client.get(f"{PAGE}?above=101").status_code == 422


def test_the_api_has_guesses_and_applies_those_above(state: AppState, client: TestClient) -> None:
    order = client.post(f"{API}/orders", json={"provider": "builtin"}).json()
    guess(state, 0.41, 0.68)
    one = f"{API}/orders/{order['id']}/guesses"
    found = client.get(one).json()
    assert [(row["guess"], row["confidence"]) for row in found] == [
        ("church 1", 0.68),
        ("church 0", 0.41),
    ]
    assert found[0]["after"] == "church 1"
    assert len(client.get(one, params={"above": 0.5}).json()) == 1
    assert client.post(f"{one}/apply", json={}).status_code == 422
    assert client.post(f"{one}/apply", json={"above": 2}).status_code == 422
    assert client.post(f"{one}/apply", json={"above": 0.5}).json()["changed"] == 1
    assert (
        client.post(f"{one}/apply", json={"proposal_ids": [found[1]["id"]]}).json()["changed"] == 1
    )
    assert captions(state)[2:] == ["church 0", "church 1"]
    assert client.get(one).json() == []


def test_a_selection_is_kept(state: AppState, client: TestClient) -> None:
    text = client.get(f"{PAGE}?images=1&image=2").text
    assert "2 images are chosen here" in text
    text = client.get(f"{PAGE}?all=1&filter=show%3Duncaptioned").text
    assert "1 image is chosen here" in text
    sent = OLLAMA | {"all": "1", "filter": "show=uncaptioned", "mode": "replace", "kind": "tags"}
    client.post(PAGE, data=sent)
    args = jobs(state)[0].arguments(CaptionImagesArgs)
    assert (args.image_ids, args.caption_kind) == ((2,), "tags")
    assert '<option value="tags" selected>' in client.get(PAGE).text
    assert client.post(PAGE, data=OLLAMA | {"images": "x"}).status_code == 422


def test_the_api_orders_shows_and_applies(state: AppState, client: TestClient) -> None:
    found = client.get(f"{API}/providers").json()
    assert [p["provider"] for p in found["providers"]] == [
        "builtin",
        "filename",
        "ollama",
        "openai",
    ]
    assert found["do_not_name"][0] == "chalk"
    preview = client.post(f"{API}/previews", json={"image_id": 1}).json()
    assert (preview["status"], preview["caption"]) == ("queued", "")
    assert client.get(f"{API}/previews/{preview['id']}").json()["image_id"] == 1
    assert client.post(f"{API}/orders", json={"caption_kind": "poem"}).status_code == 422
    order = client.post(f"{API}/orders", json={"mode": "replace", "image_ids": [1, 2]})
    assert order.status_code == 202
    propose(state, CaptionMode.REPLACE, ("proposed", "an owl"), ("empty", "Not sure."))
    one = f"{API}/orders/{order.json()['id']}"
    assert client.post(f"{API}/orders", json={}).status_code == 409
    canceled = client.post(f"{one}/cancel").json()
    assert canceled == client.get(one).json()
    assert (canceled["status"], canceled["captioned"], canceled["empty"]) == ("canceled", 1, 1)
    (proposal,) = client.get(f"{API}/proposals").json()
    assert (proposal["before"], proposal["after"]) == ("a fox", "an owl")
    assert (proposal["kind"], canceled["caption_kind"]) == ("long", None)
    applied = client.post(f"{API}/proposals/apply", json={}).json()
    assert (applied["changed"], captions(state)) == (1, ["an owl", ""])
    assert client.post(f"{API}/proposals/discard", json={"proposal_ids": [1]}).json() == {
        "discarded": 0
    }
    assert client.post(f"{one}/continue").status_code == 409
    assert client.get(f"{API}/orders/999").status_code == 404
    assert client.post(f"{API}/orders", json={"write": True, "mode": "append"}).status_code == 422


def test_a_deleted_image_is_not_ordered(state: AppState, client: TestClient) -> None:
    with state.database.write() as session:
        image = session.get_one(Image, 2)
        service.delete_image(session, image.key)
    assert client.post(f"{API}/previews", json={"image_id": 2}).status_code == 404
    assert client.post(f"{API}/orders", json={"image_ids": [2]}).status_code == 422
