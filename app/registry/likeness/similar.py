"""The adapters of the library by how near their look, or weights, are to those of something.

An image that somebody drops is measured by a job of seconds, and is not kept.
"""

from __future__ import annotations

import shutil
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.adapters.service import AdapterSummary
from app.registry.blobs import looks
from app.registry.datasets import service as datasets
from app.registry.db import database_now
from app.registry.errors import Conflict, InvalidInput
from app.registry.job_kinds.kinds import JobKind, MeasureImageArgs, MeasureImageResult
from app.registry.jobs import service as jobs
from app.registry.paging import Page
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.blobs import LOOK_VERSION, AdapterLook, Basis
from app.registry.tables.datasets import Image, is_live
from app.registry.tables.jobs import IoJob
from app.registry.temporary import temporary_folder
from app.registry.uploads import UploadedFile
from worker.core.evaluation.subjects import spread

KEPT = timedelta(days=1)  # the measured look, after the end of the job
MOST_IMAGES = 200  # of a dataset; more of them say no more of its style
NEARLY_SAME = 0.45
"""A distance up to which two styles are called nearly the same.

It is the median of trainings of one style with other seeds, images and trigger words; of other
styles those are as near that a person can hardly tell apart (`docs/benchmarks.md`).
"""

NEARLY_SAME_WEIGHTS = 0.94
"""The cosine of two sketches from which on an import names the other.

Copies in another number type have 0.999, of rank 3 in place of 4 0.96 to 0.97; other styles at most
0.89, trained with one seed; trained again with another seed about 0 (`docs/benchmarks.md`).
"""
MOST_NAMED = 3

NOT_YET = (
    "The style of “{name}” is not measured yet. A worker does that within minutes; ask again then."
)
NO_IMAGE = (
    "“{name}” has no image whose style could be compared. Generate one with it, or make a cover "
    "for it on the page of adapters."
)
NO_IMAGES = "“{name}” has no images. Add some, then ask again."


def start_search(state: AppState, upload: UploadedFile) -> IoJob:
    """Queue the measuring of an image, of which a small copy is in the job until it ends.

    Raises InvalidInput with the reason for a file that cannot be used.
    """
    with temporary_folder(state.settings.scratch, "upload-") as folder:
        source = folder / "image"
        with upload.open() as content, source.open("wb") as copy:
            shutil.copyfileobj(content, copy)
        try:
            image = state.decoder.decode(source, folder)
        except InvalidInput as error:
            raise InvalidInput(error.detail, fields={"file": error.detail}) from error
        small = (image.small or image.thumbnail).read_bytes()
    args = MeasureImageArgs(image=b64encode(small).decode())
    with state.database.write() as session:
        return jobs.enqueue_io(session, args)


def get_search(session: Session, search_id: int) -> IoJob:
    """Look up a search. Raises NotFound, also a day after its end."""
    return jobs.get_io(session, search_id, "search", JobKind.MEASURE_IMAGE)


def forget_searches(session: Session) -> None:
    """Delete the searches that ended a day ago."""
    ended = col(IoJob.finished_at) < database_now(session) - KEPT
    old = sa.delete(IoJob).where(col(IoJob.kind) == JobKind.MEASURE_IMAGE, ended)
    keys = session.connection().execute(old.returning(col(IoJob.id))).scalars()
    jobs.forget_texts(session, IoJob, [key or 0 for key in keys])


class NotMeasured(Conflict, title="Not measured yet", code="not_measured"):
    """The look is not measured yet; within a minute, its job is queued."""


@dataclass(frozen=True)
class Reference:
    """What others are compared with; `measured`: its look, that of an adapter or one like it."""

    name: str
    measured: AdapterLook


@dataclass(frozen=True)
class Similar:
    """An adapter with the distance of its look.

    `own` and `other`: the nearest images of the reference and of the adapter, by their hash; None
    if they are gone or were not kept. `subject`: what both show; empty for different things.
    """

    summary: AdapterSummary
    measured: AdapterLook
    distance: float
    own: str | None = None
    other: str | None = None
    subject: str = ""

    @property
    def is_nearly_same(self) -> bool:
        """True if trainings of one style are often as far from each other."""
        return self.distance <= NEARLY_SAME


@dataclass(frozen=True)
class SimilarPage(Page[Similar]):
    """A part of the sorted list.

    `waiting`: adapters that are still to be measured. `without`: those that have no image.
    """

    reference: Reference
    waiting: int
    without: int


def of_adapter(session: Session, adapter_id: int | str) -> Reference:
    """An adapter to compare with. Raises NotFound, and Conflict if it has no look."""
    adapter = adapters.require_listed(adapters.get_adapter(session, adapter_id))
    row = session.get(AdapterLook, adapter.key)
    if row is None or row.look_version < LOOK_VERSION:
        raise NotMeasured(NOT_YET.format(name=adapter.name))
    if row.look is None:
        raise Conflict(NO_IMAGE.format(name=adapter.name))
    return Reference(adapter.name, row)


def of_dataset(session: Session, dataset_id: int) -> Reference:
    """A dataset to compare with. Raises NotFound, and Conflict if it has no look."""
    from worker.core.likeness import pack, unpack  # numpy, which no page of others needs

    dataset = datasets.get_dataset(session, dataset_id)
    query = select(Image.thumbnail_sha256).where(is_live(dataset.key))
    hashes = spread(list(session.exec(query.order_by(col(Image.id)))), MOST_IMAGES)
    if not hashes:
        raise Conflict(NO_IMAGES.format(name=dataset.name))
    measured = looks.find(session, hashes)
    known = {sha256: measured[sha256] or b"" for sha256 in hashes if measured.get(sha256)}
    if not known:
        raise NotMeasured(NOT_YET.format(name=dataset.name))
    look = pack(unpack(list(known.values())).mean(axis=0))
    images = [["", sha256] for sha256 in known]
    return Reference(dataset.name, _look(Basis.IMAGES, look, images))


def of_image(session: Session, search_id: int) -> Reference:
    """An image to compare with, which a job measured. Raises NotFound, Conflict without a look."""
    job = get_search(session, search_id)
    look = job.outcome(MeasureImageResult).look
    if look is None:
        if job.state.is_active:
            raise NotMeasured("The image is being measured. Ask again in some seconds.")
        raise Conflict(job.error or "The measuring was canceled. Send the image again.")
    return Reference("this image", _look(Basis.IMAGE, b64decode(look), []))


def _look(basis: Basis, look: bytes, images: list[list[str]]) -> AdapterLook:
    """The look of no adapter."""
    return AdapterLook(
        adapter_id=0, look_version=LOOK_VERSION, basis=basis, look=look, images=images
    )


def list_similar(
    session: Session, reference: Reference, *, limit: int, start: int = 0, base: str = ""
) -> SimilarPage:
    """Up to `limit` adapters after the `start` nearest; `base`: only those of this family."""
    from worker.core.likeness import distances, unpack  # numpy, which no page of others needs

    # as bytes of the driver: SQLAlchemy takes 50 ms to convert 10,000 of them
    packed_look: Any = sa.type_coerce(col(AdapterLook.look), sa.types.NullType())
    columns = col(Adapter.id), col(AdapterLook.adapter_id), packed_look
    query = (
        select(*columns)
        .outerjoin(AdapterLook, col(AdapterLook.adapter_id) == col(Adapter.id))
        .where(is_in_library(), col(Adapter.id) != reference.measured.adapter_id)
    )
    if base:
        query = query.where(col(Adapter.base_family) == base)
    rows = session.exec(query).all()
    keys, packed = [key for key, _, look in rows if look], [look for *_, look in rows if look]
    (away,) = distances(unpack([reference.measured.look or b""]), unpack(packed))
    shown = away.argsort(kind="stable")[start : start + limit]
    found = {keys[place]: float(away[place]) for place in shown}
    waiting = sum(measured is None for _, measured, _ in rows)
    return SimilarPage(
        items=_list_found(session, reference, found),
        total=len(keys),
        number=start // limit + 1,
        size=limit,
        reference=reference,
        waiting=waiting,
        without=len(rows) - len(keys) - waiting,
    )


def _list_found(
    session: Session, reference: Reference, found: Mapping[int, float]
) -> list[Similar]:
    query = select(Adapter, AdapterLook).join(AdapterLook).where(col(Adapter.id).in_(found))
    rows = {row.adapter_id: (adapter, row) for adapter, row in session.exec(query)}
    hashes = {*reference.measured.hashes, *(one for _, row in rows.values() for one in row.hashes)}
    known = {sha256: look for sha256, look in looks.find(session, hashes).items() if look}
    summaries = adapters.summarize(session, [rows[key][0] for key in found if key in rows])
    return [
        Similar(summary, row, found[row.adapter_id], **_nearest(reference.measured, row, known))
        for summary in summaries
        for row in [rows[summary.adapter.key][1]]
    ]


def _nearest(mine: AdapterLook, row: AdapterLook, known: Mapping[str, bytes]) -> dict[str, Any]:
    """The two nearest images, of one subject if both show the same; none if they are gone."""
    from worker.core.likeness import distances, unpack

    own = [one for one in mine.images if one[1] in known]
    others = [one for one in row.images if one[1] in known]
    if not others:
        return {}
    ours = unpack([known[sha256] for _, sha256 in own] or [mine.look or b""])
    away = distances(ours, unpack([known[sha256] for _, sha256 in others]))
    _, _, place, column = min(
        (not subject or subject != other[0], away[place, column], place, column)
        for place, (subject, _) in enumerate(own or [["", ""]])
        for column, other in enumerate(others)
    )
    subject, sha256 = others[column]
    shown = own[place] if own else ["", None]
    return {"own": shown[1], "other": sha256, "subject": subject if shown[0] == subject else ""}


def near_weights(
    session: Session, sketch: bytes, family: str, *, besides: int | None = None
) -> list[str]:
    """Quoted names of those with nearly these weights, nearest first; not of adapter `besides`."""
    from worker.core.likeness import unpack  # numpy, which no other import needs here

    versions = (
        select(AdapterVersion.weight_sketch, Adapter.name, AdapterVersion.version)
        .join(Adapter)
        .where(is_in_library(), Adapter.base_family == family, Adapter.id != besides)
        .where(AdapterVersion.weight_sketch != b"", col(AdapterVersion.weight_sketch).is_not(None))
    )
    rows = session.exec(versions).all()
    cosines = unpack([packed or b"" for packed, *_ in rows]) @ unpack([sketch])[0] if rows else []
    near = sorted(zip(map(float, cosines), (row[1:] for row in rows), strict=True), reverse=True)
    return [
        f"“{name}”{f', version {number}' if number > 1 else ''} (cosine {cosine:.2f})"
        for cosine, (name, number) in near[:MOST_NAMED]
        if cosine >= NEARLY_SAME_WEIGHTS
    ]
