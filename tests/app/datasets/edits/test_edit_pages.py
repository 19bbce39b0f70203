"""Bulk edits on the page of a dataset: as plain forms, and as the requests of htmx."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from app.registry.datasets import service
from app.registry.datasets.image_captions.changes import CaptionChange, change_caption
from app.registry.datasets.new_images import NewImage
from app.registry.state import AppState
from app.registry.tables.datasets import Image, ImageCaption
from worker.core.words import CaptionKind

HTML = {"accept": "text/html"}
PART = {"hx-request": "true"}
SET = "/datasets/ink"


@pytest.fixture
def ids(state: AppState) -> list[int]:
    """The images of a dataset of 25, the first without a caption."""
    with state.database.write() as session:
        dataset = service.create_dataset(session, "Ink", trigger_word="ink")
        new = [
            NewImage(f"{n}.png", f"{n:064x}", "c" * 64, "e" * 64, 8, 8, 1, f"fox {n}" if n else "")
            for n in range(25)
        ]
        return [row.image.key for row in service.add_images(session, dataset.key, new)]


def images(state: AppState) -> list[Image]:
    with state.database.read() as session:
        return service.list_images(session, service.dataset_by_slug(session, "ink").key)


def field(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, name
    return found[1]


def test_without_scripts_boxes_a_preview_and_an_undo_are_forms(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    chosen = {"image": [str(ids[0]), str(ids[1])], "filter": "", "all": ""}
    page = client.post(
        f"{SET}/edits/preview", data=chosen | {"open": "add_trigger"}, headers=HTML
    ).text
    assert "Changes 2 captions" in page
    assert re.search(r"<ins>ink, </ins>fox 1", page)
    assert page.count(" checked>") == 3  # with that of the trigger word
    sent = chosen | {"do": "add_trigger", "text": "ink", "seen": field(page, "seen")}
    answer = client.post(f"{SET}/edits", data=sent, headers=HTML)
    assert "Added “ink” to 2 captions." in answer.text
    assert [image.caption for image in images(state)[:3]] == ["ink", "ink, fox 1", "fox 2"]
    (address,) = set(re.findall(rf'action="({SET}/edits/\d+/undo)"', answer.text))
    undone = client.post(address, headers=HTML)
    assert "Undone: added “ink” to 2 captions." in undone.text
    assert images(state)[1].caption == "fox 1"
    again = client.post(address, headers=PART)
    assert (again.status_code, "undone already" in again.text) == (409, True)


def test_without_scripts_boxes_of_all_that_match_can_be_cleared(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    bar = client.get(f"{SET}?q=fox+2&select=all", headers=HTML).text
    here = [str(key) for key in (ids[2], *ids[20:])]
    assert re.search(r'<noscript>.*name="here" value="([^"]*)"', bar)[1].split() == here
    sent = {"all": "1", "filter": field(bar, "filter"), "here": " ".join(here), "images": ""}
    page = client.post(
        f"{SET}/edits/preview", data=sent | {"image": here[1:], "open": "add_trigger"}, headers=HTML
    ).text
    assert "Changes 5 captions" in page
    assert page.count(" checked>") == 6
    sent |= {"image": here[1:], "do": "add_trigger", "text": "ink", "seen": field(page, "seen")}
    answer = client.post(f"{SET}/edits", data=sent, headers=HTML)
    assert answer.url.query == b"q=fox+2&edited=1"  # still with the filter
    assert "Added “ink” to 5 captions." in answer.text
    assert images(state)[2].caption == "fox 2"


def test_a_new_caption_for_all_waits_for_its_text(client: TestClient, ids: list[int]) -> None:
    sent = {"image": [str(key) for key in ids], "filter": "", "all": ""}
    opened = client.post(f"{SET}/edits/preview", data=sent | {"open": "write"}, headers=HTML).text
    assert "Enter the new caption" in opened
    emptied = client.post(f"{SET}/edits/preview", data=sent | {"do": "write"}, headers=HTML).text
    assert "Changes 24 captions" in emptied


def test_file_names_fill_empty_captions(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    with state.database.write() as session:
        session.get_one(Image, ids[0]).filename = "red_fox-02.png"
    sent = {"all": "1", "filter": "", "images": ""}
    page = client.post(
        f"{SET}/edits/preview", data=sent | {"open": "file_names"}, headers=PART
    ).text
    assert "Changes 1 caption" in page
    assert "red_fox-02.png: <ins>red fox</ins>" in page
    sent |= {"do": "file_names", "seen": field(page, "seen")}
    answer = client.post(f"{SET}/edits", data=sent, headers=PART)
    assert "Filled 1 caption from file names." in answer.text
    assert images(state)[0].caption == "red fox"
    again = client.post(f"{SET}/edits/preview", data=sent | {"seen": ""}, headers=PART).text
    assert "Changes 0 captions" in again
    assert "25 stay as they are." in again


def test_all_that_match_are_previewed_in_one_list(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    page = client.get(f"{SET}?q=fox&select=all").text
    assert "Select all 24 that match" in page
    assert "24 selected" in page
    sent = {"all": "1", "filter": "q=fox", "images": str(ids[3]), "do": "append"}
    sent |= {"text": "at night", "with_space": "1"}
    first = client.post(f"{SET}/edits/preview", data=sent, headers=PART).text
    assert "Changes 23 captions" in first
    assert first.count('<li class="beside">') == 6
    assert "Showing 6 of 23" in first
    assert 'value="23"' in first
    assert "Show 17 more" in first
    assert 'data-says="Changes 23 captions."' in first
    grown = client.post(f"{SET}/edits/preview", data=sent | {"rows": "23"}, headers=PART).text
    assert grown.count('<li class="beside">') == 23
    assert "Showing" not in grown
    assert "autofocus" in grown.partition('class="changes stack gap-2"')[2][:60]
    deep = client.get(f"{SET}?edit=remove_words&text=fox").text
    assert "Changes 24 captions" in deep
    assert client.get(f"{SET}?edit=add_trigger").text.count("<ins>ink") == 6
    assert 'name="kind"' not in deep
    with state.database.write() as session:
        session.add(ImageCaption(image_id=ids[0], kind="tags", caption="red fox", version=1))
    several = client.get(f"{SET}?edit=remove_words&text=fox&kind=tags").text
    assert "Changes 1 caption" in several
    assert '<option value="tags" selected>Tags</option>' in several
    assert re.search(r'<span class="chip">tags</span> red<del> fox</del>', several)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"do": "append", "text": "x"}, "Select at least one image."),
        ({"all": "1", "do": "replace", "find": "(", "is_regex": "true"}, "missing )"),
        ({"all": "1", "do": "replace", "find": "a(?=b)", "is_regex": "1"}, "Look-around, such as"),
        ({"all": "1", "do": "repeats", "repeats": "x"}, "from 1 to 100"),
        ({"images": "999", "do": "delete"}, "None of the selected images is in this"),
    ],
)
def test_what_is_wrong_is_said_in_the_form_and_nothing_changes(
    client: TestClient, state: AppState, ids: list[int], sent: dict[str, str], words: str
) -> None:
    for address in (f"{SET}/edits/preview", f"{SET}/edits"):
        answer = client.post(address, data=sent, headers=PART)
        assert answer.status_code == 422
        assert words in answer.text
    assert images(state)[1].caption_version == 1
    for unknown in ({"do": "explode"}, {"do": "append", "images": "x"}):
        assert client.post(f"{SET}/edits", data=unknown, headers=PART).status_code == 422


def test_what_an_edit_changed_comes_back_for_the_tiles_on_the_page(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    sent = {"all": "1", "do": "set_aside", "shown": f"{ids[1]}-{ids[2]}"}
    applied = client.post(f"{SET}/edits", data=sent, headers=PART)
    assert applied.headers["hx-trigger"] == "captions-changed"
    assert len(re.findall(r'<li class="tile aside"[^>]*hx-swap-oob="true"', applied.text)) == 2
    assert "Set aside 25 images." in applied.text
    deleted = client.post(f"{SET}/edits", data=sent | {"do": "delete"}, headers=PART)
    assert deleted.headers["hx-trigger"] == "captions-changed, images-gone"
    gone = deleted.text
    assert f'<li id="image-{ids[1]}" hidden hx-swap-oob="true"></li>' in gone
    assert images(state) == []
    (address,) = set(re.findall(r'hx-post="([^"]+/undo)" hx-swap="none"><button>Undo', gone))
    back = client.post(address, data={"shown": f"{ids[1]}"}, headers=PART).text
    assert f'id="image-{ids[1]}" data-tile hx-swap-oob="true"' in back
    assert len(images(state)) == 25


def test_captions_that_were_edited_meanwhile_are_named_in_the_message(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    sent = {"images": f"{ids[1]}-{ids[2]}", "do": "add_trigger", "text": "ink"}
    page = client.post(f"{SET}/edits/preview", data=sent, headers=PART).text
    with state.database.write() as session:
        service.caption_image(session, ids[1], "mine")
    sent["seen"] = field(page, "seen")
    answer = client.post(f"{SET}/edits", data=sent, headers=HTML)
    assert "Added “ink” to 1 caption." in answer.text
    assert "1 left out. 1.png: It was edited meanwhile, to “mine”." in answer.text


def test_an_undo_out_of_order_says_that_nothing_was_undone(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    sent = {"images": f"{ids[1]}-{ids[2]}", "text": "ink"}
    for action in ("add_trigger", "append"):
        client.post(f"{SET}/edits", data=sent | {"do": action}, headers=HTML)
    first = f"{SET}/edits/1/undo"
    for headers, more in ((HTML, {}), (PART, {}), (PART, {"elsewhere": "1"})):
        text = client.post(first, data=more, headers=headers).text
        assert "Nothing was undone. This step can still be undone once later changes are." in text
        assert "2 left out. 1.png: Its caption was changed since" in text
        assert ("oob" in text and 'id="toast-edit-1"' in text) is False
    api = "/api/v1/datasets/1/edits"
    undone = client.post(f"{api}/1/undo")
    assert (undone.status_code, undone.json()["changed"]) == (200, 0)
    assert len(undone.json()["left_out"]) == 2
    assert [step["can_undo"] for step in client.get(api).json()] == [True, True]
    for key in (2, 1):
        assert client.post(f"{api}/{key}/undo").json()["changed"] == 2


def test_the_api_previews_applies_lists_and_undoes(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    edits = "/api/v1/datasets/1/edits"
    body = {"action": "add_trigger", "text": "ink", "image_ids": ids[:2]}
    preview = client.post(edits, json=body | {"preview": True}).json()
    assert (preview["id"], preview["changed"]) == (None, 2)
    assert preview["changes"][1]["after"] == {"caption": "ink, fox 1"}
    with state.database.write() as session:
        service.caption_image(session, ids[1], "mine")
    done = client.post(edits, json=body | {"seen": preview["seen"]}).json()
    assert (done["changed"], done["left_out"][0]["filename"]) == (1, "1.png")
    (step,) = client.get(edits).json()
    assert (step["sentence"], step["can_undo"]) == ("Added “ink” to 1 caption", True)
    undone = client.post(f"{edits}/{step['id']}/undo")
    assert (undone.status_code, undone.json()["changed"]) == (200, 1)
    assert client.post(f"{edits}/{step['id']}/undo").status_code == 409
    replace = {"action": "replace", "regex": True, "all": True, "preview": True}
    for find, said in (("a{99999999}", "at most 1,000"), ("fox(?= )", "Look-around, such as")):
        refused = client.post(edits, json=replace | {"find": find})
        assert refused.status_code == 422
        (error,) = refused.json()["errors"]
        assert (error["field"], said in error["detail"]) == ("find", True)
    matching = {"action": "set_aside", "all": True, "filter": "q=fox", "image_ids": [ids[24]]}
    assert client.post(edits, json=matching).json()["changed"] == 22


def test_a_trigger_word_that_is_added_becomes_that_of_the_dataset(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    sent = {"images": str(ids[1]), "do": "add_trigger", "text": "omoji", "sets_trigger": "true"}
    done = client.post(f"{SET}/edits", data=sent, headers=PART).text
    assert "Made “omoji” the trigger word, added to 1 caption." in done
    assert re.search(r'name="trigger_word"[^>]* value="omoji"', done)  # in the form, too
    dataset, edits = "/api/v1/datasets/1", "/api/v1/datasets/1/edits"
    assert client.get(dataset).json()["trigger_word"] == "omoji"
    undone = client.post(f"{SET}/edits/1/undo", headers=PART).text
    assert re.search(r'name="trigger_word"[^>]* value="ink"', undone)
    assert client.get(dataset).json()["trigger_word"] == "ink"
    again = {"action": "add_trigger", "text": "omoji", "image_ids": [ids[1]]}
    client.post(edits, json=again)
    assert client.get(dataset).json()["trigger_word"] == "ink"  # unless it is asked for
    step = client.post(edits, json=again | {"sets_trigger": True}).json()
    assert (step["changed"], step["unchanged"]) == (0, 1)
    assert client.get(dataset).json()["trigger_word"] == "omoji"
    client.patch(dataset, json={"trigger_word": "mine"})
    client.post(f"{edits}/{step['id']}/undo")
    assert client.get(dataset).json()["trigger_word"] == "mine"  # what was set since stays
    refused = client.post(edits, json=again | {"sets_trigger": True, "text": "ink, wash"})
    assert refused.json()["errors"][0]["field"] == "text"


@pytest.mark.parametrize(
    "slip", ["show=no_triger", "no_trigger", "shwo=small", "show=small&sort=weight", "?show=small"]
)
def test_a_slip_in_a_filter_does_not_make_some_images_all(
    client: TestClient, state: AppState, ids: list[int], slip: str
) -> None:
    body = {"action": "delete", "all": True, "filter": slip}
    answer = client.post("/api/v1/datasets/1/edits", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "filter"
    sent = {"all": "1", "filter": slip, "do": "delete"}
    assert client.post(f"{SET}/edits", data=sent, headers=HTML).status_code == 422
    assert len(images(state)) == len(ids)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"do": "delete"}, "Select at least one image."),
        (
            {"do": "replace", "find": "(", "is_regex": "1", "all": "1"},
            "The regular expression is invalid",
        ),
    ],
)
def test_without_scripts_an_edit_that_is_refused_is_no_success(
    client: TestClient, ids: list[int], sent: dict[str, str], said: str
) -> None:
    answer = client.post(f"{SET}/edits", data=sent, headers=HTML)
    assert answer.status_code == 422
    assert said in answer.text


def test_an_edit_says_which_captions_where_images_have_several(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    with state.database.write() as session:
        change_caption(session, ids[0], CaptionKind.TAGS, CaptionChange("fox, red"))
    page = client.get(f"{SET}?edit=replace&find=fox&replacement=owl", headers=HTML)
    assert page.status_code == 200
    assert '<option value="tags">Tags</option>' in page.text


def test_images_are_copied_to_a_dataset_that_is_chosen_in_the_form(
    client: TestClient, state: AppState, ids: list[int]
) -> None:
    alone = client.get(f"{SET}?edit=move").text
    assert "There is no other dataset yet." in alone
    assert "Choose the other dataset." in alone
    with state.database.write() as session:
        other = service.create_dataset(session, "Chalk").key
    sent = {"images": f"{ids[1]}-{ids[2]}"}
    form = client.post(f"{SET}/edits/preview", data=sent | {"open": "copy"}, headers=PART).text
    assert f'<option value="{other}" selected>Chalk</option>' in form
    assert "Copies 2 images to “Chalk”" in form
    sent |= {"do": "copy", "dataset_id": str(other), "seen": field(form, "seen")}
    for said in (
        "Copied 2 images to “Chalk”.",
        "Nothing changed. 2 left out. 1.png: It is already",
    ):
        assert said in client.post(f"{SET}/edits", data=sent, headers=PART).text
