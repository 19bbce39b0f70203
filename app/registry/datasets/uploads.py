"""Uploads to a dataset: files are checked, stored as blobs, then written as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from sqlmodel import select

from app.registry.api_records import api_record
from app.registry.archive import Archive, ArchiveRefused, MemberRefused
from app.registry.blobs import findings
from app.registry.blobs.deletion import Deletion, delete
from app.registry.datasets import service
from app.registry.datasets.edits.applying import record_read_captions
from app.registry.datasets.intake import Intake, IntakeResult, KnownImages
from app.registry.datasets.new_images import STORED, NewImage, remove_new
from app.registry.datasets.sent_files.metadata_lines import (
    DATASET_NAME,
    DatasetFacts,
    read_dataset_facts,
)
from app.registry.datasets.service import AddedImage
from app.registry.db import Session
from app.registry.errors import QuotaUsedUp
from app.registry.state import AppState
from app.registry.tables.datasets import TRIGGER_LENGTH, Dataset, Image
from app.registry.uploads import UploadedFile
from app.registry.wording import plural

ROWS_AT_ONCE = 20  # images written in one transaction
NAMED = 5  # unused captions; of more only the number is told


class UploadCanceled(Exception):
    """Raise it in `on_image` to stop an upload; what was added until then stays."""


@api_record
class RejectedFile:
    """A rejected file with the reason."""

    filename: str = Field(description="Name of the uploaded file.")
    reason: str = Field(description="Why it was rejected, as a sentence.")


@dataclass(frozen=True)
class UploadProgress:
    """The progress of an upload: `done` of `total` images, of which `name` is the last one."""

    done: int
    total: int
    name: str


@dataclass
class UploadOutcome:
    """Result for every file of an upload."""

    accepted: list[AddedImage] = field(default_factory=list)
    rejected: list[RejectedFile] = field(default_factory=list)
    captioned: list[Image] = field(default_factory=list)
    is_canceled: bool = False


def receive(
    state: AppState,
    dataset_id: int,
    uploads: Sequence[UploadedFile],
    *,
    on_image: Callable[[UploadProgress], None] = lambda progress: None,
    is_new: bool = False,
) -> UploadOutcome:
    """Add images, captions and archives to a dataset; lists every refused file.

    Images are added as they are ready, so what was added before an error or a cancellation stays.
    Of an upload that exceeds a quota nothing stays; `is_new`: nor does the dataset.
    """
    with state.database.read() as session:
        dataset = service.get_dataset(session, dataset_id)
        known = known_images(session, dataset_id)
    outcome = UploadOutcome()
    intake = Intake(state.decoder, state.store, state.settings.scratch, known=known)
    try:
        with intake:
            intake.read_names(uploads)
            images = intake.images(
                lambda done, name: on_image(UploadProgress(done, intake.total, name))
            )
            try:
                for batch in _batches(images):
                    with state.database.write() as session:
                        added = service.add_images(session, dataset_id, batch)
                    outcome.accepted += added
            except UploadCanceled:
                outcome.is_canceled = True
        _finish(state, dataset, intake.result, outcome)
    except QuotaUsedUp:
        _undo(state, dataset_id, intake.stored(), outcome, is_new=is_new)
        raise
    return outcome


def _undo(
    state: AppState,
    dataset_id: int,
    stored: Iterable[NewImage],
    outcome: UploadOutcome,
    *,
    is_new: bool,
) -> None:
    """Delete what an upload added, and its files."""
    images = [added.image for added in outcome.accepted if not added.duplicate]
    files = {
        sha256
        for one in stored
        for sha256 in (one.clean_sha256, one.thumbnail_sha256, one.small_sha256)
        if sha256
    }

    def remove(session: Session) -> Deletion:
        remove_new(session, dataset_id, images, whole=is_new)
        return Deletion("", files=files)

    delete(state, remove)


def read_about(files: Iterable[UploadedFile]) -> DatasetFacts:
    """The name and trigger word in the first export among these files; empty if there is none."""
    for file in files:
        if not file.filename.lower().endswith(".zip"):
            continue
        with suppress(ArchiveRefused, MemberRefused), file.open() as packed, Archive(packed) as zip:
            for member in zip.members():
                if member.filename == DATASET_NAME:
                    return read_dataset_facts(b"".join(zip.read(member)))
    return DatasetFacts()


def known_images(session: Session, dataset_id: int) -> KnownImages:
    """The images of a dataset, deleted ones too, by the hash of their clean PNG; no damaged ones.

    An export of the dataset has these very files.
    """
    damaged = findings.problems(session)
    columns: list[Any] = [getattr(Image, name) for name in STORED]
    known: dict[str, list[NewImage]] = {}
    for row in session.exec(select(*columns).where(Image.dataset_id == dataset_id)):
        if row.clean_sha256 in damaged or row.thumbnail_sha256 in damaged:
            continue
        image = NewImage(**row._mapping)
        known.setdefault(image.clean_sha256, []).append(image)
    return known


def _batches(images: Iterable[NewImage]) -> Iterator[list[NewImage]]:
    """The images in short lists; also the last ones before a cancellation."""
    batch: list[NewImage] = []
    try:
        for image in images:
            batch.append(image)
            if len(batch) == ROWS_AT_ONCE:
                yield batch
                batch = []
    except UploadCanceled:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _finish(state: AppState, dataset: Dataset, taken: IntakeResult, outcome: UploadOutcome) -> None:
    """Add what is about images that were there before, and say what was not used."""
    outcome.rejected += [RejectedFile(*refused) for refused in taken.rejected]
    with state.database.write() as session:
        if not outcome.is_canceled:
            captioned = service.caption_by_stem(session, dataset.key, taken.captions_without_image)
            outcome.rejected += [
                RejectedFile(
                    f"{stem} (caption)", "The dataset has no image of this name. Upload it too."
                )
                for stem in taken.captions_without_image
                if stem not in captioned
            ]
            outcome.captioned += [added.image for added in captioned.values()]
            read = [*outcome.accepted, *captioned.values()]
            outcome.rejected += _unused_captions(read)
            record_read_captions(session, dataset, [row.image for row in read if row.filled])
        _add_repeated(session, dataset.key, taken, outcome)
        _take_facts(session, dataset.key, taken.about)


def _add_repeated(
    session: Session, dataset_id: int, taken: IntakeResult, outcome: UploadOutcome
) -> None:
    """Files that were sent twice are duplicates; only their captions may be new."""
    there = {added.image.sha256 for added in outcome.accepted}
    again = [image for _, image in taken.repeated if image.sha256 in there]
    added = service.add_images(session, dataset_id, again)
    outcome.rejected += _unused_captions(added)
    outcome.accepted += added


def _unused_captions(added: Sequence[AddedImage]) -> Iterator[RejectedFile]:
    unused = [(row, caption) for row in added for caption in row.unused]
    if len(unused) > NAMED:
        yield RejectedFile(
            plural(len(unused), "caption"),
            "Their images have other captions, which stay. Those of the files are in the history "
            "of each image.",
        )
        return
    for row, caption in unused:
        yield RejectedFile(
            caption.file,
            f"The image “{row.image.filename}” has another caption, which stays. "
            f"In its history is now: “{caption.text}”.",
        )


def _take_facts(session: Session, dataset_id: int, about: DatasetFacts) -> None:
    """The trigger word of an export, for a dataset that has none."""
    word = about.trigger_word
    if not word or len(word) > TRIGGER_LENGTH or "," in word:
        return
    dataset = service.get_dataset(session, dataset_id, lock=True)
    if not dataset.trigger_word:
        service.change_dataset(session, dataset_id, trigger_word=word)
