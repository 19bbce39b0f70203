"""The list of adapters by nearness: what it is sorted by, what is left out, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from sqlmodel import select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.blobs import looks
from app.registry.db import Database, utcnow
from app.registry.deletion import adapters as deletion
from app.registry.errors import Conflict, NotFound
from app.registry.likeness import measuring, similar
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.blobs import AdapterLook, ImageLook
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.runs import Sample
from tests.app.likeness.looked import add_adapter, look, measure, named
from worker.core.likeness import pack
from worker.core.training.presets import SAMPLE_SUBJECTS


def pair_of(one: similar.Similar) -> tuple[str | None, str | None, str]:
    return one.own, one.other, one.subject


def names(database: Database, of: int, **options: object) -> list[str]:
    with database.read() as session:
        found = similar.list_similar(
            session,
            similar.of_adapter(session, of),
            limit=10,
            **options,  # type: ignore[arg-type]
        )
        return [one.summary.adapter.name for one in found.items]


def test_the_nearest_come_first_with_the_images_that_made_it_so(database: Database) -> None:
    ink = add_adapter(database, "Ink", 0)
    add_adapter(database, "Chalk", 3)
    near = add_adapter(database, "Pen", 1)
    add_adapter(database, "Large", 0.5, family="sdxl")
    assert names(database, ink) == ["Large", "Pen", "Chalk"]
    assert names(database, ink, base="sd1") == ["Pen", "Chalk"]
    assert names(database, ink, start=2) == ["Chalk"]
    with database.read() as session:
        page = similar.list_similar(session, similar.of_adapter(session, ink), limit=2)
        first, second = page.items
    assert (page.total, page.waiting, page.without) == (3, 0, 0)
    assert (second.summary.adapter.key, second.distance) == (near, pytest.approx(1, abs=0.01))
    assert second.measured.measured_in == "its cover alone"
    assert pair_of(second) == (named("cover of Ink"), named("cover of Pen"), "")
    assert first.summary.adapter.base_family == "sdxl"


def test_samples_of_shared_prompts_come_before_the_cover(database: Database) -> None:
    ink = add_adapter(database, "Ink", 9)
    with database.write() as session:
        version = session.exec(select(AdapterVersion)).one()
        for number, subject in enumerate(SAMPLE_SUBJECTS):
            sample = {"prompt": f"{subject}, ink style", "sha256": named(subject), "seed": 0}
            session.add(Sample(version_id=version.key, step=9, prompt_index=number, **sample))
            looks.save(session, {named(subject): look(number)})
        looks.forget_adapters(session, [ink])
    measure(database)
    other = add_adapter(database, "Pen", 2)
    with database.read() as session:
        reference = similar.of_adapter(session, ink)
        assert reference.measured.measured_in == "5 images of shared prompts"
        (pen,) = similar.list_similar(session, reference, limit=5).items
        (back,) = similar.list_similar(session, similar.of_adapter(session, other), limit=5).items
    assert pen.distance == pytest.approx(0, abs=0.01)  # of the mean of 0 to 4
    assert pair_of(pen) == (named("red apple"), named("cover of Pen"), "")
    assert back.measured.measured_in == "5 images of shared prompts"


def test_images_of_one_subject_are_paired(database: Database) -> None:
    one, two = (add_adapter(database, name, 0) for name in ("Ink", "Pen"))
    with database.write() as session:
        for key, gap in ((one, 0.0), (two, 1.0)):
            row = session.get_one(AdapterLook, key)
            row.images = [[subject, named(f"{subject} {key}")] for subject in ("cat", "boat")]
            values = {"cat": 0 + gap * 5, "boat": 4 + gap}  # a cat of 5 is as near to a boat of 4
            looks.save(
                session, {named(f"{name} {key}"): look(value) for name, value in values.items()}
            )
            session.add(row)
    with database.read() as session:
        (pen,) = similar.list_similar(session, similar.of_adapter(session, one), limit=5).items
    assert pair_of(pen) == (named(f"boat {one}"), named(f"boat {two}"), "boat")


def test_what_has_no_image_is_said_and_what_to_do(database: Database) -> None:
    bare = add_adapter(database, "Bare", None)
    ink = add_adapter(database, "Ink", 0)
    late = add_adapter(database, "Late", 1, measured=False)
    with database.read() as session:
        with pytest.raises(Conflict, match="“Bare” has no image whose style"):
            similar.of_adapter(session, bare)
        with pytest.raises(Conflict, match="“Late” is not measured yet"):
            similar.of_adapter(session, late)
        page = similar.list_similar(session, similar.of_adapter(session, ink), limit=5)
    assert (list(page.items), page.total, page.waiting, page.without) == ([], 0, 1, 1)


def test_a_dataset_of_one_image_and_one_without(database: Database) -> None:
    add_adapter(database, "Ink", 0)
    add_adapter(database, "Pen", 2)
    with database.write() as session:
        small, empty = (Dataset(slug=name, name=name) for name in ("small", "empty"))
        session.add_all([small, empty])
        session.flush()
        image = {"sha256": named("a"), "clean_sha256": named("b"), "thumbnail_sha256": named("c")}
        sides = {"width": 8, "height": 8, "size_bytes": 9, "filename": "a.png"}
        session.add(Image(dataset_id=small.key, **image, **sides))
        ids = small.key, empty.key
    with database.write() as session:
        with pytest.raises(Conflict, match="not measured yet"):
            similar.of_dataset(session, ids[0])
        assert looks.missing_in_datasets(session, limit=5) == [named("c")]
        looks.save(session, {named("c"): look(1.5)})
        assert looks.missing_in_datasets(session, limit=5) == []
        reference = similar.of_dataset(session, ids[0])
        found = similar.list_similar(session, reference, limit=5).items
        assert [one.summary.adapter.name for one in found] == ["Pen", "Ink"]
        assert pair_of(found[0]) == (named("c"), named("cover of Pen"), "")
        assert reference.measured.measured_in == "1 image of the dataset"
        with pytest.raises(Conflict, match="has no images"):
            similar.of_dataset(session, ids[1])
        with pytest.raises(NotFound):
            similar.of_dataset(session, 99)


def test_a_new_cover_is_measured_and_a_deleted_adapter_is_not_listed(database: Database) -> None:
    ink, pen = (add_adapter(database, name, 1) for name in ("Ink", "Pen"))
    with database.write() as session:
        assert measuring.list_adapters(session, limit=5) == []
        adapter = session.get_one(Adapter, pen)
        adapter.cover_sha256 = named("another")
        looks.save(session, {named("another"): look(7)})
        session.add(adapter)
        session.flush()
        ((found, _),) = measuring.list_adapters(session, limit=5)
        assert found.key == pen
    measure(database)
    with database.read() as session:
        (other,) = similar.list_similar(session, similar.of_adapter(session, ink), limit=5).items
    assert other.distance == pytest.approx(6, abs=0.01)
    with database.write() as session:
        session.get_one(Adapter, pen).deleted_at = utcnow()
    assert names(database, ink) == []
    with database.read() as session, pytest.raises(NotFound):
        similar.of_adapter(session, pen)
    with database.write() as session:
        gone = deletion.delete_forever(session, pen)
        looks.delete_of(session, gone.files)
    with database.read() as session:
        assert [row.adapter_id for row in session.exec(select(AdapterLook))] == [ink]
        left = {row.sha256 for row in session.exec(select(ImageLook))}
        assert named("another") not in left
    with database.write() as session:
        looks.delete_unused(session)
    with database.read() as session:
        assert {row.sha256 for row in session.exec(select(ImageLook))} == {named("cover of Ink")}


def test_an_adapter_whose_image_was_deleted_for_good_is_measured_again(database: Database) -> None:
    ink = add_adapter(database, "Ink", 1)
    with database.write() as session:
        adapter = session.get_one(Adapter, ink)
        adapter.cover_sha256 = None
        session.add(adapter)
        session.flush()
        looks.delete_of(session, {named("cover of Ink")})
        assert session.exec(select(AdapterLook)).all() == []


def test_nearly_the_same_weights_are_found_by_their_sketches(database: Database) -> None:
    def add(name: str, *numbers: float, family: str = "sd1") -> int:
        sketch = pack(np.array(numbers))
        new = NewVersion(name, family, named(name), 10, 4, 4.0, weight_sketch=sketch)
        with database.write() as session:
            return publish(session, new).adapter_id

    ink = add("Ink", 1, 0)
    add("Chalk", 0, 1)
    add("Large", 1, 0, family="sdxl")
    with database.read() as session:
        (sketch,) = session.exec(
            select(AdapterVersion.weight_sketch).where(AdapterVersion.adapter_id == ink)
        )
        assert similar.near_weights(session, sketch or b"", "sd1") == ["“Ink” (cosine 1.00)"]
        assert similar.near_weights(session, sketch or b"", "sd1", besides=ink) == []
        assert similar.near_weights(session, sketch or b"", "sd2") == []
        assert measuring.list_versions(session, limit=5) == []
