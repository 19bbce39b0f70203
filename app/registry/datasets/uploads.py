"""Uploads to a dataset: files are checked, stored as blobs, then written as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.registry.datasets import intake, service
from app.registry.datasets.models import Image
from app.registry.datasets.service import AddedImage
from app.registry.state import AppState
from app.registry.uploads import UploadedFile


@dataclass(frozen=True)
class RejectedFile:
    """A refused file, and the reason."""

    filename: str
    reason: str


@dataclass(frozen=True)
class UploadOutcome:
    """Result for every file of an upload."""

    accepted: list[AddedImage]
    rejected: list[RejectedFile]
    captioned: list[Image]


def receive(state: AppState, dataset_id: int, uploads: Sequence[UploadedFile]) -> UploadOutcome:
    """Add images, captions and archives to a dataset; lists every refused file."""
    with state.database.read() as session:
        service.get_dataset(session, dataset_id)
    taken = intake.take_in(
        uploads,
        decoder=state.decoder,
        store=state.store,
        scratch=state.settings.scratch,
    )
    rejected = [RejectedFile(filename, reason) for filename, reason in taken.rejected]
    with state.database.write() as session:
        accepted = service.add_images(session, dataset_id, taken.accepted)
        captioned = service.caption_by_stem(session, dataset_id, taken.captions_without_image)
    by_name = {added.image.filename: added.image for added in accepted}
    accepted += [
        AddedImage(by_name[first], duplicate=True)
        for _, first in taken.repeated
        if first in by_name
    ]
    rejected += [
        RejectedFile(f"{stem} (caption)", "The dataset has no image of this name. Upload it too.")
        for stem in taken.captions_without_image
        if stem not in captioned
    ]
    return UploadOutcome(accepted, rejected, list(captioned.values()))
