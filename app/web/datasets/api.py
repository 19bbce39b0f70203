"""REST: datasets, their images and captions."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, File, UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.registry.datasets import service, uploads
from app.registry.datasets.models import NAME_LENGTH, TRIGGER_LENGTH, Dataset, Image
from app.registry.errors import InvalidInput
from app.web.state import Id, State
from app.web.uploads import uploaded

router = APIRouter(tags=["datasets"])

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH)
]
TriggerWord = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=TRIGGER_LENGTH, pattern=r"^[^,\n]*$")
]


class DatasetIn(BaseModel):
    """A new dataset."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    trigger_word: TriggerWord | None = None


class DatasetPatch(BaseModel):
    """The changes to a dataset; absent fields stay."""

    model_config = ConfigDict(extra="forbid")
    name: Name | None = None
    trigger_word: TriggerWord | None = None


class DatasetOut(BaseModel):
    """A dataset."""

    id: int
    slug: str
    name: str
    trigger_word: str | None
    image_count: int


class ImageOut(BaseModel):
    """An image of a dataset."""

    id: int
    filename: str
    sha256: str
    width: int
    height: int
    size_bytes: int
    caption: str
    caption_version: int
    repeats: int
    never_flip: bool
    note: str | None
    url: str
    thumbnail_url: str


class AcceptedOut(ImageOut):
    """An accepted image; `duplicate`: it was already in the dataset."""

    duplicate: bool


class RejectedOut(BaseModel):
    """A rejected file with the reason."""

    filename: str
    reason: str


class UploadOut(BaseModel):
    """The result of an upload, file by file."""

    accepted: list[AcceptedOut]
    rejected: list[RejectedOut]


class ImagePatch(BaseModel):
    """The changes to an image.

    With `caption_version`, a caption that was changed since is a 409.
    """

    model_config = ConfigDict(extra="forbid")
    caption: str | None = Field(None, max_length=100_000)
    caption_version: int | None = None
    repeats: int | None = Field(None, description="How often a round shows it, 1 to 100.")
    never_flip: bool | None = Field(None, description="Not mirrored, whatever a run says.")

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.caption is None and self.repeats is None and self.never_flip is None:
            raise ValueError("say a caption, repeats or never_flip")
        return self


def dataset_out(dataset: Dataset, image_count: int) -> DatasetOut:
    """A dataset as the API shows it."""
    return DatasetOut(
        id=dataset.key,
        slug=dataset.slug,
        name=dataset.name,
        trigger_word=dataset.trigger_word,
        image_count=image_count,
    )


def image_out(image: Image) -> ImageOut:
    """Convert an image for the API."""
    return ImageOut(
        **image.model_dump(include=set(ImageOut.model_fields)),
        url=f"/media/{image.clean_sha256}",
        thumbnail_url=f"/media/{image.thumbnail_sha256}",
    )


@router.post("/datasets", status_code=201)
def create(body: DatasetIn, state: State) -> DatasetOut:
    """Create an empty dataset."""
    with state.database.write() as session:
        dataset = service.create_dataset(session, body.name, trigger_word=body.trigger_word)
    return dataset_out(dataset, 0)


@router.get("/datasets")
def index(state: State, q: str = "") -> list[DatasetOut]:
    """All datasets, newest first."""
    with state.database.read() as session:
        found = service.list_datasets(session, q=q[:200])
    return [dataset_out(row.dataset, row.image_count) for row in found]


@router.get("/datasets/{dataset_id}")
def show(dataset_id: Id, state: State) -> DatasetOut:
    """One dataset."""
    with state.database.read() as session:
        row = service.summary(session, service.get_dataset(session, dataset_id))
    return dataset_out(row.dataset, row.image_count)


@router.patch("/datasets/{dataset_id}")
def change(dataset_id: Id, body: DatasetPatch, state: State) -> DatasetOut:
    """Rename a dataset or change its trigger word ("" removes it)."""
    with state.database.write() as session:
        dataset = service.change_dataset(
            session, dataset_id, name=body.name, trigger_word=body.trigger_word
        )
        row = service.summary(session, dataset)
    return dataset_out(dataset, row.image_count)


@router.delete("/datasets/{dataset_id}", status_code=204)
def delete(dataset_id: Id, state: State) -> None:
    """Delete a dataset; 409 while a run is queued or running on it."""
    with state.database.write() as session:
        service.delete_dataset(session, dataset_id)


@router.post("/datasets/{dataset_id}/restore")
def restore(dataset_id: Id, state: State) -> DatasetOut:
    """Restore a deleted dataset."""
    with state.database.write() as session:
        dataset = service.restore_dataset(session, dataset_id)
        row = service.summary(session, dataset)
    return dataset_out(dataset, row.image_count)


@router.post("/datasets/{dataset_id}/images")
def upload(dataset_id: Id, files: Annotated[list[UploadFile], File()], state: State) -> UploadOut:
    """Add images (PNG, JPEG, WebP), their `.txt` captions, or a `.zip` of both."""
    if not files:
        raise InvalidInput(
            "Send at least one file in the field `files`.", fields={"files": "Empty."}
        )
    outcome = uploads.receive(state, dataset_id, [uploaded(file) for file in files])
    return UploadOut(
        accepted=[
            AcceptedOut(**image_out(added.image).model_dump(), duplicate=added.duplicate)
            for added in outcome.accepted
        ],
        rejected=[
            RejectedOut(filename=row.filename, reason=row.reason) for row in outcome.rejected
        ],
    )


@router.get("/datasets/{dataset_id}/images")
def images(dataset_id: Id, state: State, show: str = "all", q: str = "") -> list[ImageOut]:
    """The images of a dataset; `show=uncaptioned`: only those without a caption."""
    with state.database.read() as session:
        service.get_dataset(session, dataset_id)
        found = service.list_images(session, dataset_id, show=show, q=q[:200])
    return [image_out(image) for image in found]


@router.get("/images/{image_id}")
def show_image(image_id: Id, state: State) -> ImageOut:
    """One image."""
    with state.database.read() as session:
        return image_out(service.get_image(session, image_id))


@router.patch("/images/{image_id}")
def change_image(image_id: Id, body: ImagePatch, state: State) -> ImageOut:
    """Change an image: its caption (the old one stays in the history), repeats or flipping."""
    with state.database.write() as session:
        image = service.change_image(
            session, image_id, repeats=body.repeats, never_flip=body.never_flip
        )
        if body.caption is not None:
            image = service.caption_image(
                session, image_id, body.caption, seen_version=body.caption_version
            )
    return image_out(image)


@router.delete("/images/{image_id}", status_code=204)
def delete_image(image_id: Id, state: State) -> None:
    """Delete an image from its dataset."""
    with state.database.write() as session:
        service.delete_image(session, image_id)


@router.post("/images/{image_id}/restore")
def restore_image(image_id: Id, state: State) -> ImageOut:
    """Restore a deleted image."""
    with state.database.write() as session:
        return image_out(service.restore_image(session, image_id))
