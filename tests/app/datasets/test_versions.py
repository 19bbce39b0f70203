"""Versions of a dataset: where they were used, what differs between two, and copies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.registry.comparison.datasets import compare_versions
from app.registry.datasets import pinned, service
from app.registry.datasets.edits.copying import duplicate_dataset
from app.registry.datasets.edits.differences import Part
from app.registry.datasets.new_images import NewImage
from app.registry.db import Database
from app.registry.errors import InvalidInput, NotFound
from app.registry.runs.requests import RunRequest, create_run
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset, Image, ImageCaption

Png = Callable[..., bytes]


def foxes(session: Session, names: str = "abc") -> tuple[Dataset, list[Image]]:
    """A dataset with an image for each of these letters, which are the captions too."""
    dataset = service.create_dataset(session, "Foxes", trigger_word="foxish")
    new = [
        NewImage(f"{name}.png", name * 64, name * 64, name * 64, 8, 6, 1, caption=f"fox {name}")
        for name in names
    ]
    return dataset, [row.image for row in service.add_images(session, dataset.key, new)]


def test_two_versions_differ_in_images_captions_and_settings(database: Database) -> None:
    with database.write() as session:
        dataset, (a, b, c) = foxes(session)
        before = pinned.pin_version(session, dataset)
        service.delete_image(session, a.key)
        service.caption_image(session, b.key, "wolf b")
        service.change_image(session, c.key, repeats=3, never_flip=True)
        c.focus_x, c.focus_y = 0.5, 0.25
        session.add(ImageCaption(image_id=c.key, kind="tags", caption="fox, red"))
        new = NewImage("d.png", "d" * 64, "d" * 64, "d" * 64, 8, 6, 1, caption="fox d")
        service.add_images(session, dataset.key, [new])
        session.flush()
        after = pinned.pin_version(session, dataset)
        found = compare_versions(session, dataset.key, before.key, after.key)
        back = compare_versions(session, dataset.key, after.key, before.key)
        now = compare_versions(session, dataset.key, after.key, None)
    added, removed, caption, settings = found.changes
    assert [change.filename for change in found.changes] == ["d.png", "a.png", "b.png", "c.png"]
    assert (added.kind, added.captions[0].after) == ("added", "fox d")
    assert (removed.kind, removed.captions[0].before) == ("removed", "fox a")
    assert [(piece.part, piece.text) for piece in caption.captions[0].pieces] == [
        (Part.REMOVED, "fox"),
        (Part.ADDED, "wolf"),
        (Part.SAME, " b"),
    ]
    assert [(one.kind, one.before, one.after) for one in settings.captions] == [
        ("tags", "", "fox, red")
    ]
    assert settings.facts == ["3 repeats, before 1", "never flipped", "another focus point"]
    assert (found.same, len(back.changes), now.changes, now.same) == (0, 4, [], 3)


def test_a_version_of_another_dataset_is_refused(sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        one, _ = foxes(session)
        other, _ = foxes(session)
        version = pinned.pin_version(session, other)
        with pytest.raises(NotFound):
            compare_versions(session, one.key, version.key, None)


def test_a_copy_has_everything_and_stays_when_the_original_changes(database: Database) -> None:
    with database.write() as session:
        dataset, (first, second, third) = foxes(session)
        session.add(ImageCaption(image_id=first.key, kind="tags", caption="fox, red", share=2))
        first.focus_x, first.focus_y, first.repeats, second.set_aside = 0.5, 0.25, 4, True
        service.delete_image(session, third.key)
        session.flush()
        copy = duplicate_dataset(session, dataset.key)
        old, new = (pinned.current_items(session, one.key) for one in (dataset, copy))
        assert old == new
        assert (copy.name, copy.slug, copy.trigger_word) == ("Foxes (copy)", "foxes-copy", "foxish")
        assert [image.set_aside for image in service.list_images(session, copy.key)] == [
            *(False, True)
        ]
        service.caption_image(session, first.key, "wolf")
        assert pinned.current_items(session, copy.key) == new
        assert duplicate_dataset(session, dataset.key, name="Wolves").slug == "wolves"
        service.change_dataset(session, dataset.key, name="f" * 120)
        assert duplicate_dataset(session, dataset.key).name == "f" * 112 + "… (copy)"
        with pytest.raises(InvalidInput, match="This has 121 characters; use at most 120"):
            duplicate_dataset(session, dataset.key, name="w" * 121)


@pytest.fixture
def trained(state: AppState, ready_base: None) -> Dataset:
    """A dataset with a run on an earlier version of it."""
    with state.database.write() as session:
        dataset, (first, *_) = foxes(session)
        create_run(session, RunRequest(dataset_id=dataset.key, name="First run"))
        service.caption_image(session, first.key, "wolf a")
    return dataset


def test_pages_show_versions_and_what_changed(client: TestClient, trained: Dataset) -> None:
    assert 'href="/datasets/foxes/versions"' in client.get("/datasets/foxes").text
    page = client.get("/datasets/foxes/versions").text
    assert 'href="/runs/1">First run</a>' in page
    assert "/datasets/foxes/versions/1/export" in page
    page = client.get("/datasets/foxes/versions/compare?a=1&b=now").text
    assert "0 images added, 0 removed, 1 changed, 2 the same." in page
    assert "<del>fox</del><ins>wolf</ins>" in page
    assert '<a href="/datasets/foxes/images/1">' in page
    assert "Nothing differs" in client.get("/datasets/foxes/versions/compare?a=now").text
    assert client.get("/datasets/foxes/versions/compare?a=99&b=now").status_code == 404
    assert "versions/compare?a=1" in client.get("/runs/1/images").text
    client.delete("/api/v1/images/1")  # its page is gone, its file is not
    page = client.get("/datasets/foxes/versions/compare?a=1&b=now").text
    assert "1 removed" in page
    assert '<a href="/media/' in page


def test_the_api_compares_and_copies(client: TestClient, trained: Dataset) -> None:
    address = f"/api/v1/datasets/{trained.key}"
    found = client.get(f"{address}/versions/compare", params={"a": 1}).json()
    assert (found["added"], found["removed"], found["changed"], found["same"]) == (0, 0, 1, 2)
    assert found["changes"][0]["captions"] == [
        {"kind": "long", "before": "fox a", "after": "wolf a"}
    ]
    (version,) = client.get(f"{address}/versions").json()
    assert version["runs"] == [{"id": 1, "name": "First run", "regularization": False}]
    made = client.post(f"{address}/duplicate", json={"name": "Wolves"})
    assert (made.status_code, made.json()["image_count"]) == (201, 3)
    assert (
        client.post("/datasets/foxes/duplicate", follow_redirects=False).headers["location"]
        == "/datasets/foxes-copy"
    )
