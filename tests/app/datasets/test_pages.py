"""A person's work with datasets, as plain forms and as the requests of our scripts."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from app.registry.datasets import service
from app.registry.datasets.new_images import NewImage
from app.registry.runs import service as runs
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset, Image
from app.web.datasets import listing_view
from app.web.datasets.forms import name_from_file, read_dataset_form
from tests import fake_workers

HTML = {"accept": "text/html"}
PART = {"hx-request": "true"}
JSON = {"accept": "application/json"}
Png = Callable[..., bytes]


@pytest.fixture
def boats(client: TestClient, png: Png) -> str:
    """The address of a dataset with two pictures, one of them captioned."""
    files = [
        ("files", ("one.png", png(1), "image/png")),
        ("files", ("one.txt", b"a boat", "text/plain")),
        ("files", ("two.png", png(2), "image/png")),
    ]
    answer = client.post(
        "/datasets",
        data={"name": "Boats", "trigger_word": "boatish"},
        files=files,
        follow_redirects=False,
    )
    assert answer.status_code == 303
    location: str = answer.headers["location"]
    return location


def pictures(state: AppState, slug: str = "boats") -> list[Image]:
    with state.database.read() as session:
        return service.list_images(session, service.dataset_by_slug(session, slug).key)


def row(state: AppState, slug: str = "boats") -> Dataset:
    with state.database.read() as session:
        return service.dataset_by_slug(session, slug)


def test_a_name_of_a_megabyte_is_refused_beside_its_field(client: TestClient) -> None:
    files = [("files", ("", b"", "application/octet-stream"))]  # as browsers send an empty field
    data = {"name": "n" * 1_000_000, "trigger_word": "ink"}
    for address in ("/datasets", "/datasets/boats"):
        answer = client.post(address, data=data, files=files)
        assert answer.status_code == 422
        assert 'id="field-name-error"' in answer.text
        assert 'value="ink"' in answer.text
        client.post("/datasets", data={"name": "Boats"})


def test_it_creates_a_dataset_with_pictures_in_one_form(
    client: TestClient, state: AppState, boats: str
) -> None:
    assert boats == "/datasets/boats"
    assert row(state).trigger_word == "boatish"
    assert [image.caption for image in pictures(state)] == ["a boat", ""]
    text = client.get(boats).text
    assert "2 images, smallest side 64 px." in text
    assert 'href="/train/new?dataset=boats"' in text


def test_it_names_a_dataset_by_its_archive_when_no_name_was_given(client: TestClient) -> None:
    files = [("files", ("harbor_lights.zip", b"not a zip", "application/zip"))]
    answer = client.post("/datasets", files=files, headers=HTML)
    assert "Harbor lights" in answer.text
    assert "harbor_lights.zip" in answer.text


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("my-best_pictures.zip", "My best pictures"),
        ("C:\\art\\boats.ZIP", "Boats"),
        ("photo.png", "New dataset"),
        (None, "New dataset"),
        ("a" * 121 + ".zip", "A" + "a" * 118 + "…"),
    ],
)
def test_a_first_file_suggests_a_name(filename: str | None, name: str) -> None:
    assert name_from_file(filename) == name


@pytest.mark.parametrize(
    ("name", "word", "field"),
    [
        ("", "", "name"),
        ("n" * 121, "", "name"),
        ("ok", "w" * 61, "trigger_word"),
        ("ok", "a, b", "trigger_word"),
    ],
)
def test_a_wrong_name_or_word_is_told_beside_its_field(
    client: TestClient, name: str, word: str, field: str
) -> None:
    assert list(read_dataset_form({"name": name, "trigger_word": word}).errors) == [field]
    answer = client.post("/datasets", data={"name": name, "trigger_word": word}, headers=HTML)
    assert answer.status_code == 422
    assert f'id="field-{field}-error"' in answer.text
    assert f'value="{word or name}"' in answer.text


def test_it_renames_in_place_and_keeps_the_address(
    client: TestClient, state: AppState, boats: str
) -> None:
    answer = client.post(boats, data={"name": " Old  boats ", "trigger_word": ""})
    assert answer.status_code == 200
    assert (row(state).name, row(state).trigger_word) == ("Old boats", None)
    answer = client.post(boats, data={"name": "", "trigger_word": "x"}, headers=HTML)
    assert answer.status_code == 422
    assert "Give the dataset a name" in answer.text
    assert row(state).name == "Old boats"


def test_it_finds_datasets_by_name_and_says_when_there_are_none(
    client: TestClient, boats: str
) -> None:
    assert "1 of 2 captioned" in client.get("/datasets?q=boat").text
    assert "Nothing found" in client.get("/datasets?q=100%25").text


def test_it_shows_pictures_without_caption_and_finds_words(client: TestClient, boats: str) -> None:
    bare = client.get(f"{boats}?show=uncaptioned").text
    assert "two.png" in bare
    assert "one.png" not in bare
    found = client.get(f"{boats}?q=a+boat").text
    assert "one.png" in found
    assert "two.png" not in found
    assert "No caption or file name contains" in client.get(f"{boats}?q=whale").text
    assert client.get(f"{boats}?show=rubbish").status_code == 200


def test_each_refused_file_is_named_and_the_rest_is_taken(
    client: TestClient, state: AppState, boats: str, png: Png
) -> None:
    files = [
        ("files", ("three.png", png(3), "image/png")),
        ("files", ("page.png", b"<html><script>x</script></html>", "image/png")),
        ("files", ("empty.jpg", b"", "image/jpeg")),
        ("files", ("nobody.txt", b"a caption", "text/plain")),
    ]
    answer = client.post(f"{boats}/images", files=files, headers=HTML)
    assert answer.status_code == 200
    for name in ("page.png", "empty.jpg", "nobody (caption)"):
        assert f"<strong>{name}</strong>" in answer.text
    assert len(pictures(state)) == 3
    answer = client.post(f"{boats}/images", files=files[1:2], headers=HTML)
    assert answer.status_code == 422


def test_an_upload_by_script_gets_tiles_refusals_and_figures(
    client: TestClient, boats: str, png: Png
) -> None:
    files = [
        ("files", ("three.png", png(3), "image/png")),
        ("files", ("again.png", png(1), "image/png")),
        ("files", ("bad.png", b"nope", "image/png")),
        ("files", ("two.txt", b"late words", "text/plain")),
    ]
    text = client.post(f"{boats}/images", files=files, headers=PART).text
    assert "<html" not in text
    assert 'data-taken="new"' in text
    assert 'data-taken="again"' in text
    assert 'data-taken="caption"' in text
    assert 'data-refused="bad.png"' in text
    assert "3 images" in text
    assert "late words" in text
    assert "Read 1 caption from files" in text


def test_captions_of_dropped_files_are_one_step_of_undo(
    client: TestClient, state: AppState, boats: str, png: Png
) -> None:
    def drop(*files: tuple[str, bytes]) -> str:
        sent = [("files", file) for file in files]
        return client.post(f"{boats}/images", files=sent, headers=PART).text

    drop(("three.png", png(3)))
    assert "Read 1 caption from files" in drop(("two.txt", b"late words"))
    both = ("three.png", png(3)), ("three.txt", b"a barge")  # this image is here already
    text = drop(*both)
    assert "Read 2 captions from files" in text
    assert text.count("/undo") == 2  # of one step: without a script, and with one
    assert "Read 2 captions from files" in drop(("one.txt", b"another"))  # it has a caption
    assert "Read 2 captions from files" in client.get(boats).text
    step = re.search(r"/edits/(\d+)/undo", text)
    assert step is not None
    client.post(f"{boats}/edits/{step[1]}/undo", headers=PART)
    assert [image.caption for image in pictures(state)] == ["a boat", "", ""]
    assert "Read 1 caption from files" in drop(("two.txt", b"late words"))


def test_an_upload_of_nothing_changes_nothing(
    client: TestClient, state: AppState, boats: str
) -> None:
    assert client.post(f"{boats}/images", headers=HTML).status_code == 200
    assert len(pictures(state)) == 2


def save(
    client: TestClient, state: AppState, caption: str, version: int, accept: dict[str, str]
) -> Response:
    image = pictures(state)[0]
    return client.post(
        f"/datasets/boats/images/{image.id}/caption",
        data={"caption": caption, "version": version},
        headers=accept,
        follow_redirects=False,
    )


def test_a_caption_saved_by_script_gives_its_new_version(
    client: TestClient, state: AppState, boats: str
) -> None:
    version = pictures(state)[0].caption_version
    answer = save(client, state, " a red boat ", version, JSON)
    assert answer.json() == {
        "caption": "a red boat",
        "version": version + 1,
        "uncaptioned": 1,
        "tokens": 3,
    }


def test_a_caption_saved_as_a_form_goes_back_to_its_picture(
    client: TestClient, state: AppState, boats: str
) -> None:
    image = pictures(state)[0]
    answer = save(client, state, "a red boat", image.caption_version, HTML)
    assert answer.headers["location"] == f"{boats}#image-{image.id}"


def test_two_writers_of_one_caption_are_both_kept(
    client: TestClient, state: AppState, boats: str
) -> None:
    version = pictures(state)[0].caption_version
    assert save(client, state, "mine", version, JSON).status_code == 200
    answer = save(client, state, "yours", version, JSON)
    assert answer.status_code == 409
    told = {error["field"]: error["detail"] for error in answer.json()["errors"]}
    assert told == {"caption": "mine", "caption_version": str(version + 1)}
    page = save(client, state, "yours", version, HTML)
    assert page.status_code == 409
    assert "Changed elsewhere to “mine”" in page.text
    assert "\nyours</textarea>" in page.text
    assert f'name="version" value="{version + 1}"' in page.text
    assert pictures(state)[0].caption == "mine"


def test_a_caption_that_is_too_long_is_refused_with_the_limit(
    client: TestClient, state: AppState, boats: str
) -> None:
    answer = save(client, state, "x" * 10_000, 1, JSON)
    assert answer.status_code == 422
    assert "10,000 characters; at most 2,000" in answer.json()["detail"]
    assert pictures(state)[0].caption == "a boat"


@pytest.mark.parametrize("version", ["abc", "-1", "99999999999999"])
def test_a_version_that_is_none_is_refused(
    client: TestClient, state: AppState, boats: str, version: str
) -> None:
    image = pictures(state)[0]
    answer = client.post(
        f"{boats}/images/{image.id}/caption",
        data={"caption": "x", "version": version},
        headers=JSON,
    )
    assert answer.status_code == 422


def test_a_picture_belongs_to_one_dataset(client: TestClient, state: AppState, boats: str) -> None:
    client.post("/datasets", data={"name": "Other"})
    image = pictures(state)[0]
    for act in ("caption", "delete", "restore"):
        assert client.post(f"/datasets/other/images/{image.id}/{act}").status_code == 404
    assert len(pictures(state)) == 2


def test_a_deleted_picture_is_offered_back(client: TestClient, state: AppState, boats: str) -> None:
    image = pictures(state)[0]
    page = client.post(f"{boats}/images/{image.id}/delete", headers=HTML)
    assert "“one.png” deleted." in page.text
    assert len(pictures(state)) == 1
    client.post(f"{boats}/images/{image.id}/restore", headers=HTML)
    assert len(pictures(state)) == 2
    assert "deleted." not in client.get(boats).text


def test_a_picture_deleted_by_script_leaves_its_place_and_an_undo(
    client: TestClient, state: AppState, boats: str
) -> None:
    image = pictures(state)[0]
    text = client.post(f"{boats}/images/{image.id}/delete", headers=PART).text
    assert f'<li id="image-{image.id}" hidden></li>' in text
    assert "1 image," in text
    assert "Undo" in text
    text = client.post(f"{boats}/images/{image.id}/restore", headers=PART).text
    assert f'<li class="tile" id="image-{image.id}"' in text
    assert "2 images," in text
    assert client.post(f"{boats}/images/{image.id}/restore", headers=PART).status_code == 200


def test_a_deleted_dataset_is_offered_back(client: TestClient, state: AppState, boats: str) -> None:
    key = row(state).key
    page = client.post(f"{boats}/delete", headers=HTML)
    assert "“Boats” was deleted." in page.text
    assert client.get(boats, headers=HTML).status_code == 404
    page = client.post(f"/datasets/{key}/restore", headers=HTML)
    assert page.url.path == boats
    assert len(pictures(state)) == 2


def test_an_empty_dataset_says_what_to_do(client: TestClient) -> None:
    page = client.post("/datasets", data={"name": "Empty"}, headers=HTML)
    assert 'data-total="0"' in page.text
    assert "Drop, paste or choose images." in page.text
    assert "15 to 30 images" in page.text


def images_of(state: AppState, dataset: Dataset) -> list[Image]:
    with state.database.read() as session:
        return service.list_images(session, dataset.key)


def test_how_often_a_picture_is_shown_is_saved_from_its_tile(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state, pictures=1)
    (image,) = images_of(state, dataset)
    place = f"/datasets/{dataset.slug}/images/{image.key}/rules"
    sent = {"repeats": "3", "never_flip": "1"}
    fragment = client.post(place, data=sent, headers={"hx-request": "true"})
    assert "3 repeats, never flipped</summary>" in fragment.text
    assert "3 repeats" in client.get(f"/datasets/{dataset.slug}").text
    assert client.post(place, data={"repeats": "x"}, headers=HTML).status_code == 422
    (image,) = images_of(state, dataset)
    assert (image.repeats, image.never_flip) == (3, True)


@pytest.fixture
def many(state: AppState) -> list[int]:
    """The ids of the images of a dataset of three pages, every other one without a caption."""
    with state.database.write() as session:
        dataset = service.create_dataset(session, "Many")
        new = [
            NewImage(
                filename=f"{number}.png",
                sha256=f"{number:064x}",
                clean_sha256="0" * 64,
                thumbnail_sha256="0" * 64,
                width=64,
                height=64,
                size_bytes=100,
                caption=f"boat {number}" if number % 2 else "",
            )
            for number in range(130)
        ]
        return [added.image.key for added in service.add_images(session, dataset.key, new)]


def tiles_of(text: str) -> list[int]:
    return [int(key) for key in re.findall(r'<li class="tile" id="image-(\d+)"', text)]


def link_to(text: str, label: str) -> str:
    found = re.search(rf'href="([^"]+)"[^>]*>{label}</a>', text)
    return found[1].replace("&amp;", "&") if found else ""


def test_a_long_dataset_is_walked_page_by_page_by_plain_links(
    client: TestClient, many: list[int]
) -> None:
    seen, address = [], "/datasets/many"
    while address:
        text = client.get(address).text
        assert "130 images" in text
        seen.append(tiles_of(text))
        address = link_to(text, "More images")
    assert [len(page) for page in seen] == [48, 48, 34]
    assert [key for page in seen for key in page] == many
    back = client.get(link_to(text, "Earlier images")).text
    assert tiles_of(back) == seen[1]
    assert link_to(back, "Earlier images") == "/datasets/many?page=1"


def test_pages_keep_the_filter_and_the_search(client: TestClient, many: list[int]) -> None:
    more = link_to(client.get("/datasets/many?show=uncaptioned").text, "More images")
    assert more == f"/datasets/many?show=uncaptioned&page=2&after={many[94]}"
    assert tiles_of(client.get(more).text) == many[96::2]
    more = link_to(client.get("/datasets/many?q=boat+").text, "More images")
    assert more == f"/datasets/many?q=boat&page=2&after={many[95]}"


def test_a_script_gets_the_next_tiles_alone(client: TestClient, many: list[int]) -> None:
    answer = client.get(f"/datasets/many/tiles?page=2&after={many[47]}&first=1", headers=PART)
    assert "<html" not in answer.text
    assert tiles_of(answer.text) == many[48:96]
    assert f"/datasets/many/tiles?page=3&amp;after={many[95]}&amp;first=1" in answer.text
    last = client.get(f"/datasets/many/tiles?page=3&after={many[95]}&first=1", headers=PART).text
    assert "data-more" not in last


def test_a_form_leads_back_to_the_page_of_its_image(client: TestClient, many: list[int]) -> None:
    image = f"/datasets/many/images/{many[70]}"
    back = "/datasets/many?page=2"
    saved = client.post(f"{image}/caption", data={"caption": "x"}, headers=HTML)
    assert str(saved.url).endswith(f"{back}#image-{many[70]}")
    contested = client.post(
        f"{image}/caption", data={"caption": "mine", "version": "0"}, headers=HTML
    )
    assert contested.status_code == 409
    assert tiles_of(contested.text)[0] == many[48]
    deleted = client.post(f"{image}/delete", headers=HTML)
    assert str(deleted.url).endswith(f"{back}#image-{many[70]}")
    assert "129 images" in deleted.text


def test_a_page_beyond_the_last_one_shows_an_existing_one(
    client: TestClient, many: list[int]
) -> None:
    assert tiles_of(client.get(f"/datasets/many?after={many[-1]}").text) == many[:48]
    assert tiles_of(client.get("/datasets/many?page=1000000000").text) == many[96:]


def test_scrolling_adds_four_pages_then_a_link_leads_on(
    client: TestClient, many: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_view, "PAGES_AT_ONCE", 2)
    added = client.get(f"/datasets/many/tiles?page=2&after={many[47]}&first=1", headers=PART).text
    assert link_to(added, "More images") == f"/datasets/many?page=3&after={many[95]}"
    assert 'hx-get="/datasets/many/tiles' not in added


def test_chips_words_and_order_are_links_that_combine(client: TestClient, boats: str) -> None:
    text = client.get(f"{boats}?show=uncaptioned&without=a+fox&sort=name&show=pretty").text
    assert "There is no filter “pretty”." in text
    assert "1 of 2 images" in text
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="(/datasets/[^"]*)"', text)]
    assert f"{boats}?sort=name" in links  # all
    assert f"{boats}?without=a+fox&sort=name" in links  # removes “No caption”
    assert f"{boats}?show=uncaptioned&show=no_trigger&without=a+fox&sort=name" in links
    assert f"{boats}?show=uncaptioned&sort=name" in links  # removes the word
    assert f"{boats}?show=uncaptioned&without=a+fox&sort=similar" in links
    assert "No image matches all of these filters." in client.get(f"{boats}?with=zzz").text
    assert client.get(f"{boats}/filters?q=boat", headers=PART).text.count("1 of 2 images") == 1


def test_words_are_counted_when_somebody_asks(client: TestClient, boats: str) -> None:
    closed = client.get(boats).text
    assert f'href="{boats}/statistics?"' in closed
    assert "Short side" not in closed
    opened = client.get(f"{boats}/statistics?with=boat", headers=HTML).text  # without scripts
    assert "1 of 2 images has a caption of 2 words." in opened
    part = client.get(f"{boats}/statistics", headers=PART).text
    assert "<html" not in part
    assert f'href="{boats}?with=boat&amp;statistics=1"' in part
    assert f'href="{boats}?without=boat&amp;statistics=1"' in part
    chosen = client.get(f"{boats}?with=boat&statistics=1").text
    assert chosen.index('id="statistics"') < chosen.index('id="checks"') < closed.index("</html>")
    assert closed.index('id="checks"') < closed.index('id="statistics"')


def test_the_list_of_datasets_comes_in_pages(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        for number in range(30):
            service.create_dataset(session, f"Set {number}")
    first = client.get("/datasets?q=set").text
    assert first.count('<article class="card">') == 24
    assert "30 datasets" in first
    second = client.get("/datasets?q=set&page=2").text
    assert second.count('<article class="card">') == 6
    assert 'href="/datasets?q=set&amp;page=1"' in second
    assert client.get("/datasets?page=99").text.count('<article class="card">') == 6


def test_a_dataset_in_use_says_by_whom_and_leads_to_it(client: TestClient, state: AppState) -> None:
    dataset = fake_workers.dataset(state)
    run = fake_workers.queued_run(state, dataset)
    address, link = f"/datasets/{dataset.slug}/delete", f'href="/runs/{run.key}"'
    client.headers["accept"] = "text/html"
    page = {"referer": f"http://localhost/datasets/{dataset.slug}?page=2"}
    refused = client.post(address, headers=page)
    assert refused.status_code == 409
    assert "uses this dataset" in refused.text
    assert link in refused.text
    assert f'href="/datasets/{dataset.slug}?page=2"' in refused.text
    elsewhere = client.post(address, headers={"referer": "http://localhost.example/"})
    assert "Go back" not in elsewhere.text
    half = {"referer": "http://[::1", "sec-fetch-site": "same-origin"}  # half an IPv6 address
    assert client.post(address, headers=half).status_code == 409
    beside = client.post(address, headers={"hx-request": "true"})
    assert beside.status_code == 409
    assert link in beside.text
    with state.database.write() as session:
        runs.cancel_run(session, run.key)
    done = client.post(address, headers={"hx-request": "true"})
    assert done.headers["hx-redirect"] == "/datasets"
