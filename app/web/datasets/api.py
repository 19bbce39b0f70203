"""REST: datasets, their images and captions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from fastapi import File, Query, Request, Response, UploadFile
from pydantic import Field, StrictBool, StringConstraints

from app.registry.datasets import examples, service, uploads
from app.registry.datasets.captions import MAX_CHARACTERS
from app.registry.datasets.image_captions.changes import change_first_kind
from app.registry.datasets.uploads import RejectedFile
from app.registry.db import Session
from app.registry.errors import InvalidInput
from app.registry.people.whose import only
from app.registry.slugs import Number
from app.registry.tables.datasets import MAX_REPEATS, TRIGGER_LENGTH, Dataset, Image
from app.registry.validation import Fraction, Name
from app.web.access.needs import Action, Router
from app.web.answers import Answer, OwnedAnswer
from app.web.datasets import one_image_api
from app.web.datasets import upload_progress as progress
from app.web.forms import uploaded
from app.web.problems import problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part, Whose
from app.web.state import DatasetId, Id, Reading, State, Writing
from worker.core.documented import DocumentedModel
from worker.core.starter.examples import EXAMPLES
from worker.core.words import CaptionKind

router = Router(tags=["datasets"])
router.include_router(one_image_api.router)

TriggerWord = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=TRIGGER_LENGTH, pattern=r"^[^,\n]*$")
]
CaptionText = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Repeats = Annotated[int, Field(ge=1, le=MAX_REPEATS)]
Search = Annotated[
    str,
    Query(max_length=1_000, description="Words to search for, at most 200 characters count."),
]


class DatasetIn(DocumentedModel):
    """A new dataset."""

    model_config = example(name="Ink", trigger_word="ink")
    name: Name = Field(description="Name of the style.")
    trigger_word: TriggerWord | None = None
    """Word that calls the style in a prompt; without commas."""


class ExampleIn(DocumentedModel):
    """An example style."""

    model_config = example(style=next(iter(EXAMPLES)))
    style: str = Field(max_length=60, json_schema_extra={"enum": list(EXAMPLES)})
    """Which of the styles that come with Brushwork."""


class DatasetPatch(Patch):
    """The changes to a dataset; absent fields stay."""

    model_config = example(name="Ink 2")
    name: Name = change("New name.")
    trigger_word: TriggerWord = change("New trigger word; an empty one removes it.")


class DatasetOut(OwnedAnswer):
    """A dataset."""

    address: ClassVar[str] = "/api/v1/datasets/{id}"
    id: int = Field(description="Id of the dataset.")
    slug: str = Field(description="Its name in the addresses of pages.")
    name: str = Field(description="Its name.")
    trigger_word: str | None = Field(description="Word that calls the style in a prompt.")
    image_count: int = Field(description="Number of images, deleted ones not counted.")


class ImageOut(Answer):
    """An image of a dataset."""

    id: int = Field(description="Id of the image.")
    filename: str = Field(description="Name of the uploaded file.")
    sha256: str = Field(description="SHA-256 of the uploaded file.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    size_bytes: int = Field(description="Size of the uploaded file.")
    caption: str = Field(description="What the image shows; empty: no caption yet.")
    caption_version: int = Field(description="Counts the changes of the caption.")
    repeats: int = Field(description="How often one pass over the dataset shows it.")
    never_flip: bool = Field(description="True if it is not mirrored, whatever a run says.")
    set_aside: bool = Field(description="True if it is kept, but not trained on.")
    focus: tuple[float, float] | None
    """The point (x, y) that crops keep, 0 to 1; null: the center."""
    caption_kind: CaptionKind = Field(description="What its caption is, where it has several.")
    note: str | None = Field(description="What was changed when it was uploaded.")
    url: str = Field(description="Address of the image, re-encoded without metadata.")
    thumbnail_url: str = Field(description="Address of a small copy.")

    @classmethod
    def of_image(cls, image: Image, **derived: Any) -> Self:
        """An image as the API shows it."""
        url, small = f"/media/{image.clean_sha256}", f"/media/{image.thumbnail_sha256}"
        return cls.of(image, url=url, thumbnail_url=small, **derived)


class AcceptedOut(ImageOut):
    """An accepted image."""

    duplicate: bool = Field(description="True if it was already in the dataset.")


class UploadOut(DocumentedModel):
    """The result of an upload, file by file."""

    accepted: list[AcceptedOut] = Field(description="The images that were added.")
    captioned: list[int]
    """Ids of images that were there already, of which captions or a `metadata.jsonl` without them
    said something."""
    rejected: list[RejectedFile] = Field(description="The files that were not.")


class ImagePatch(Patch):
    """The changes to an image; absent fields stay."""

    model_config = example(caption="a fox in the snow")
    aids = frozenset({"caption_version"})
    caption: CaptionText = change("What the image shows.")
    caption_version: Number = change("The version you saw; a caption changed since is a 409.")
    repeats: Repeats = change("How often one pass over the dataset shows it.")
    never_flip: StrictBool = change("Not mirrored, whatever a run says.")
    set_aside: StrictBool = change("Kept, but not trained on.")
    focus: list[Fraction] | None = Field(None, min_length=2, max_length=2)
    """The point (x, y) that crops keep, each 0 to 1 from the top left; null: the center."""
    caption_kind: CaptionKind = change("What its caption is.")


def dataset_out(session: Session, dataset: Dataset) -> DatasetOut:
    """A dataset as the API shows it."""
    return DatasetOut.of(dataset, image_count=service.summary(session, dataset).image_count)


@router.post("/datasets", Action.CREATE, status_code=201)
def create_dataset(body: DatasetIn, session: Writing) -> DatasetOut:
    """Create an empty dataset."""
    dataset = service.create_dataset(session, body.name, trigger_word=body.trigger_word)
    return dataset_out(session, dataset)


@router.post(
    "/examples",
    Action.CREATE,
    status_code=201,
    responses={200: {"model": DatasetOut}, **problems({404: "There is no such example style."})},
)
def add_example(body: ExampleIn, state: State, response: Response) -> DatasetOut:
    """Create the dataset of an example style, with its images and captions.

    If there is one of its name with images, nothing changes, and that one is the answer.
    """
    dataset, is_new = examples.add_example(state, examples.find_example(body.style))
    response.status_code = 201 if is_new else 200
    response.headers["location"] = f"/api/v1/datasets/{dataset.key}"
    with state.database.read() as session:
        return dataset_out(session, dataset)


@router.get("/datasets", Action.LOOK)
def list_datasets(
    session: Reading, part: Part, q: Search = "", whose: Whose = None
) -> list[DatasetOut]:
    """List all datasets, newest first."""
    with only(session, Dataset, whose):
        rows = service.list_datasets(session, q=q[:200])
    found = part.of(rows, lambda row: row.dataset.key)
    return [DatasetOut.of(row.dataset, image_count=row.image_count) for row in found]


@router.get("/datasets/{dataset_id}", Action.LOOK)
def get_dataset(dataset_id: DatasetId, session: Reading) -> DatasetOut:
    """Get a dataset."""
    return dataset_out(session, service.get_dataset(session, dataset_id))


@router.patch("/datasets/{dataset_id}", Action.EDIT)
def change_dataset(dataset_id: DatasetId, body: DatasetPatch, session: Writing) -> DatasetOut:
    """Rename a dataset or change its trigger word."""
    dataset = service.change_dataset(
        session, dataset_id, name=body.name, trigger_word=body.trigger_word
    )
    return dataset_out(session, dataset)


@router.post(
    "/datasets/{dataset_id}/images",
    Action.EDIT,
    response_model=UploadOut,
    responses={
        200: {"content": {progress.MEDIA_TYPE: {"schema": {"type": "string"}}}},
        **problems({413: "More than 12 GB in one request: send several."}),
    },
)
def upload_images(
    request: Request,
    dataset_id: DatasetId,
    files: Annotated[
        list[UploadFile],
        File(
            max_length=500,
            description="PNG, JPEG or WebP images, `.txt` captions, `.zip` archives of both.",
        ),
    ],
    state: State,
    session: Reading,
) -> Response | UploadOut:
    """Add images to a dataset, with their captions.

    A `.txt` is the caption of the image with the same name. An image that is already in the
    dataset is a duplicate and not stored twice. A file that cannot be used is rejected with the
    reason; the others are added. An archive that was exported restores everything; so does its
    `metadata.jsonl` for images that are there already, where they have nothing of their own.

    With `Accept: application/x-ndjson` the answer is a line of JSON for each image, with `done`,
    `total` and `name`; the last line is the result, or a problem with `status` and `detail`.
    Closing the connection cancels; what was added until then stays.
    """
    if not files:
        raise InvalidInput(
            "Send at least one file in the field `files`.", fields={"files": "Empty."}
        )
    service.get_dataset(session, dataset_id)
    sent = [uploaded(file) for file in files]
    if not progress.wants_progress(request):
        return _upload_out(uploads.receive(state, dataset_id, sent))
    return progress.progress_response(
        request.url.path,
        lambda on_image: uploads.receive(state, dataset_id, sent, on_image=on_image),
        lambda outcome: _upload_out(outcome).model_dump(),
    )


def _upload_out(outcome: uploads.UploadOutcome) -> UploadOut:
    return UploadOut(
        accepted=[
            AcceptedOut.of_image(added.image, duplicate=added.duplicate)
            for added in outcome.accepted
        ],
        captioned=[image.key for image in outcome.captioned],
        rejected=outcome.rejected,
    )


@router.get("/images/{image_id}", Action.LOOK)
def get_image(image_id: Id, session: Reading) -> ImageOut:
    """Get an image."""
    return ImageOut.of_image(service.get_image(session, image_id))


@router.patch(
    "/images/{image_id}",
    Action.EDIT,
    responses=problems({409: "The caption was changed since `caption_version`."}),
)
def change_image(image_id: Id, body: ImagePatch, session: Writing) -> ImageOut:
    """Change the caption of an image, or how runs use it.

    Earlier captions stay in its history.
    """
    image = service.change_image(
        session,
        image_id,
        repeats=body.repeats,
        never_flip=body.never_flip,
        set_aside=body.set_aside,
    )
    if "focus" in body.model_fields_set:
        focus = (body.focus[0], body.focus[1]) if body.focus else None
        image = service.set_focus(session, image_id, focus)
    if body.caption_kind is not None:
        image = change_first_kind(session, image_id, body.caption_kind)
    if body.caption is not None:
        image = service.caption_image(
            session, image_id, body.caption, seen_version=body.caption_version
        )
    return ImageOut.of_image(image)
