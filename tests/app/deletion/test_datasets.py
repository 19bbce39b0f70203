"""Datasets and images are deleted for good, on both databases."""

from __future__ import annotations

import pytest
from sqlmodel import Session, select

from app.registry.blobs import latents
from app.registry.datasets import service
from app.registry.datasets.pinned import pin_version
from app.registry.deletion import datasets as deletion
from app.registry.deletion import lists, runs
from app.registry.deletion.things import DeletedKind, list_things
from app.registry.errors import Conflict, NotFound
from app.registry.runs import requests
from app.registry.runs.service import run_image_count
from app.registry.tables.adapters import AdapterFile
from app.registry.tables.datasets import (
    CaptionRevision,
    Dataset,
    DatasetEdit,
    DatasetVersion,
    Image,
    ImageCaption,
    ImageMeasure,
)
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.deletion.conftest import SECRET, Registry


def put_away(registry: Registry, dataset: Dataset) -> None:
    with registry.database.write() as session:
        service.delete_dataset(session, dataset.key)


def images_of(registry: Registry, dataset: Dataset) -> list[Image]:
    with registry.database.read() as session:
        return service.list_images(session, dataset.key)


def add_workbench_rows(session: Session, image: Image) -> None:
    """A second caption, an edit and a measure of this image."""
    session.add(ImageCaption(image_id=image.key, kind="short", caption=SECRET))
    measure = {"clean_sha256": image.clean_sha256, "measure_version": 1}
    session.merge(ImageMeasure(**measure, sharpness=1.0))
    before = [{"image_id": image.key, "before": {"caption": SECRET}, "after": {"caption": ""}}]
    edit = DatasetEdit(
        dataset_id=image.dataset_id, action="replace", settings={}, changed=1, before=before
    )
    session.add(edit)
    session.flush()
    service.caption_image(session, image.key, f"{SECRET} once more")
    newest = select(CaptionRevision).where(CaptionRevision.image_id == image.key)
    for revision in session.exec(newest).all():
        revision.edit_id = edit.key


def test_an_image_leaves_the_edits_that_it_was_part_of(registry: Registry) -> None:
    dataset = registry.dataset()
    first, second = images_of(registry, dataset)[:2]
    with registry.database.write() as session:
        before = [{"image_id": image.key, "before": {}, "after": {}} for image in (first, second)]
        session.add(
            DatasetEdit(
                dataset_id=dataset.key, action="replace", settings={}, changed=2, before=before
            )
        )
        service.delete_image(session, first.key)
    registry.delete(lambda session: deletion.delete_image(session, first.key))
    with registry.database.read() as session:
        (edit,) = session.exec(select(DatasetEdit)).all()
        assert [row["image_id"] for row in edit.before] == [second.key]


def test_nothing_is_left_of_a_dataset(registry: Registry) -> None:
    dataset = registry.dataset()
    with registry.database.write() as session:
        for image in service.list_images(session, dataset.key):
            service.caption_image(session, image.key, f"{SECRET} again")
            add_workbench_rows(session, image)
    with pytest.raises(Conflict, match=r"This dataset is not deleted. Delete it first"):
        registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    put_away(registry, dataset)
    freed = registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    assert (freed.goes, freed.stays, freed.files) == (("3 images",), (), 3)
    with registry.database.read() as session:
        for table in (
            *(Dataset, DatasetVersion, Image, CaptionRevision),
            *(DatasetEdit, ImageCaption, ImageMeasure),
        ):
            assert session.exec(select(table)).all() == []
    assert SECRET not in registry.texts()
    assert registry.size() == 0
    with pytest.raises(NotFound, match="for good already"):
        registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))


def test_runs_keep_what_they_were_trained_on_until_they_go_too(registry: Registry) -> None:
    dataset = registry.dataset()
    first, second = registry.run(dataset), registry.run(dataset)
    image = images_of(registry, dataset)[0]
    with registry.database.write() as session:
        service.delete_image(session, image.key)
    third = registry.run(dataset)  # with two images
    put_away(registry, dataset)
    freed = registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    assert freed.files == 0
    assert freed.stays[0] == ("3 images stay, with captions, because 3 runs were trained on them.")
    with registry.database.read() as session:
        (kept,) = list_things(session, DeletedKind.DATASETS).items
        assert kept.about == "0 images, 3 runs trained on it"
        assert run_image_count(session, third) == 2
    for run in (first, second):
        registry.delete(lambda session, key=run.key: runs.delete_run(session, key))
    both = registry.delete(
        lambda session: deletion.delete_dataset(session, dataset.key, with_runs=True)
    )
    assert f"run {third.key}, “Cats”" in both.goes
    with registry.database.read() as session:
        assert session.exec(select(Dataset)).all() == []
        assert not lists.has_deleted(session, Dataset)
    assert SECRET not in registry.texts()
    assert registry.size() == 0


def test_a_run_that_has_not_ended_keeps_its_dataset(registry: Registry) -> None:
    dataset, other = registry.dataset(), registry.dataset("Dogs", caption="a dog")
    with registry.database.write() as session:
        request = requests.RunRequest(dataset_id=other.key, regularization_dataset_id=dataset.key)
        requests.create_run(session, request)
    put_away(registry, dataset)
    with pytest.raises(Conflict, match=r"is waiting. Cancel it first"):
        registry.delete(
            lambda session: deletion.delete_dataset(session, dataset.key, with_runs=True)
        )
    freed = registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    assert freed.stays[0].startswith("3 images stay")


def test_an_image_goes_from_all_versions_that_no_run_needs(registry: Registry) -> None:
    dataset = registry.dataset()
    with registry.database.write() as session:
        pin_version(session, service.get_dataset(session, dataset.key))
    image, other, _ = images_of(registry, dataset)
    with pytest.raises(Conflict, match="is not deleted"):
        registry.delete(lambda session: deletion.delete_image(session, image.key))
    with registry.database.write() as session:
        for gone in (image, other):
            service.delete_image(session, gone.key)
    with registry.database.read() as session:
        assert len(deletion.list_deleted_images(session, dataset.key)) == 2
    freed = registry.delete(lambda session: deletion.delete_image(session, image.key))
    assert (freed.title, freed.files) == (f"image “{image.filename}”", 1)
    with registry.database.read() as session:
        assert session.exec(select(DatasetVersion)).all() == []
        assert deletion.count_deleted_images(session, dataset.key) == 1
    run = registry.run(dataset, samples=False)
    last = images_of(registry, dataset)[0]
    with registry.database.write() as session:
        service.delete_image(session, last.key)
    kept = registry.delete(lambda session: deletion.delete_deleted_images(session, dataset.key))
    assert kept.stays[0].startswith("1 image stays, with captions, because 1 run was trained on it")
    assert kept.files == 1  # the other one, on which no run was trained
    registry.delete(lambda session: runs.delete_run(session, run.key))
    assert registry.size() == 0


def test_an_image_and_the_runs_on_it_go_together(registry: Registry) -> None:
    dataset = registry.dataset()
    registry.run(dataset, samples=False)
    image = images_of(registry, dataset)[0]
    with registry.database.write() as session:
        service.delete_image(session, image.key)
    freed = registry.delete(
        lambda session: deletion.delete_image(session, image.key, with_runs=True)
    )
    assert freed.files == 2  # the image, the checkpoint
    with registry.database.read() as session:
        assert session.exec(select(Run)).all() == []


def test_an_adapter_keeps_no_captions_of_a_deleted_run(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state, "Cats")
    tagged = registry.blob("file with the tags of captions")
    with registry.database.write() as session:
        version = fake_workers.service.get_version(session, adapter)
        version.details = {"dataset": "Cats"}
        session.add(version)
        row = {"format": "kohya", "dtype": "fp16", "with_tags": True, "sha256": tagged}
        session.add(AdapterFile(version_id=version.key, size_bytes=1, **row))
    registry.delete(lambda session: runs.delete_run(session, 1))
    assert not registry.state.store.exists(tagged)
    with registry.database.write() as session:
        (pinned,) = session.exec(select(DatasetVersion)).all()
        assert (pinned.items, pinned.image_count) == ([], 3)
        again = pin_version(session, service.get_dataset(session, pinned.dataset_id))
        assert len(again.items) == 3
    with registry.database.read() as session:
        dataset = session.exec(select(Dataset)).one()
    put_away(registry, dataset)
    registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    with registry.database.read() as session:
        version = fake_workers.service.get_version(session, adapter)
        assert (version.dataset_version_id, version.details) == (None, {})


def test_the_same_image_in_another_dataset_is_kept(registry: Registry) -> None:
    dataset, other = registry.dataset(), registry.dataset("Dogs", caption="a dog")
    put_away(registry, dataset)
    freed = registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    assert (freed.files, freed.stays) == (0, ("3 files stay: datasets have the same images.",))
    assert all(
        registry.state.store.exists(image.clean_sha256) for image in images_of(registry, other)
    )


def test_the_cache_of_encodings_forgets_images_and_captions(registry: Registry) -> None:
    dataset = registry.dataset()
    image = images_of(registry, dataset)[0]
    data_dir = registry.state.settings.data_dir
    cache, elsewhere = data_dir / latents.CACHE, data_dir.parent / "elsewhere" / latents.CACHE
    caption = deletion.pinned.caption_hash("a fox")
    names = (f"{image.clean_sha256}-64x64-2", f"{image.clean_sha256}-64x64-mirrored-2", caption)
    for folder in (cache, elsewhere):
        for name in (*names, "0" * 64):
            path = folder / "vae-1" / name[:2] / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"numbers")
    put_away(registry, dataset)
    registry.delete(lambda session: deletion.delete_dataset(session, dataset.key))
    assert [path.name for path in cache.rglob("*.safetensors")] == [f"{'0' * 64}.safetensors"]
    seen = latents.forget_erased(registry.database, data_dir.parent / "elsewhere")
    assert len(list(elsewhere.rglob("*.safetensors"))) == 1
    assert latents.forget_erased(registry.database, data_dir, after=seen) == seen > 0
