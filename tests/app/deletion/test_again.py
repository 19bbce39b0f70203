"""Things deleted for good can be uploaded, imported and trained again, on both databases."""

from __future__ import annotations

import hashlib

from sqlmodel import Session, select

from app.registry.adapters import service as adapters
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.datasets import service as datasets
from app.registry.datasets.new_images import NewImage
from app.registry.deletion import adapters as deleted
from app.registry.deletion import datasets as deletion
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Image
from tests import fake_workers
from tests.app.deletion.conftest import Registry


def no_file(words: str) -> str:
    """A hash of what is not stored, such as an upload or tensors."""
    return hashlib.sha256(words.encode()).hexdigest()


def uploaded(registry: Registry) -> NewImage:
    """An image as it is after an upload: the uploaded file itself is not kept."""
    return NewImage(
        filename="fox.png",
        sha256=no_file("upload"),
        clean_sha256=registry.blob("clean"),
        thumbnail_sha256=registry.blob("small"),
        width=80,
        height=64,
        size_bytes=400,
        caption="a fox",
    )


def made(registry: Registry, words: str) -> AdapterVersion:
    """A version as imports and trainings make it, with hashes of its tensors."""
    new = NewVersion(
        name="Ink",
        base_family="sd1",
        sha256=registry.blob(f"weights {words}"),
        size_bytes=1,
        rank=4,
        alpha=4.0,
        base_model_id=1,
        details={"tensor_sha256": no_file(f"sent {words}")},
        tensor_sha256=no_file(f"tensors {words}"),
    )
    with registry.database.write() as session:
        return publish(session, new)


def delete_adapter(registry: Registry, version: AdapterVersion) -> None:
    with registry.database.write() as session:
        adapters.delete_adapter(session, version.adapter_id)
    registry.delete(lambda session: deleted.delete_forever(session, version.adapter_id))


def test_an_image_can_be_uploaded_again(registry: Registry) -> None:
    dataset = fake_workers.dataset(registry.state, pictures=0)

    def upload() -> None:
        image = uploaded(registry)
        with registry.database.write() as session:
            datasets.add_images(session, dataset.key, [image])

    def delete_all(session: Session) -> None:
        for image in session.exec(select(Image)):
            datasets.delete_image(session, image.key)

    upload()
    with registry.database.write() as session:
        delete_all(session)
    freed = registry.delete(lambda s: deletion.delete_deleted_images(s, dataset.key))
    assert freed.files == 2
    upload()
    with registry.database.read() as session:
        assert [image.filename for image in datasets.list_images(session, dataset.key)] == [
            "fox.png"
        ]


def test_an_adapter_can_be_imported_again(registry: Registry) -> None:
    delete_adapter(registry, made(registry, "x"))
    again = made(registry, "x")
    assert again.tensor_sha256 == no_file("tensors x")


def test_other_adapters_of_the_base_model_can_be_made(registry: Registry) -> None:
    with registry.database.write() as session:
        session.get_one(BaseModel, 1).fingerprint = no_file("base")
    delete_adapter(registry, made(registry, "x"))
    assert made(registry, "y").details["base_fingerprint"] == no_file("base")
