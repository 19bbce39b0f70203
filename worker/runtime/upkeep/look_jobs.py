"""Jobs of the io worker that measure looks. Importing this module loads torch."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import cache, partial

from PIL import Image
from sqlmodel import col, update

from app.registry.blobs import looks
from app.registry.job_kinds.kinds import MeasureImageArgs, MeasureImageResult
from app.registry.job_kinds.states import JobStatus
from app.registry.likeness import measuring
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.adapters import Adapter, AdapterVersion
from worker.core.eyes import Eyes, open_eyes
from worker.core.likeness import measure_looks, pack
from worker.core.lora_files.canonical import load_adapter
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.sketch import sketch_weights
from worker.runtime.job_progress import IoWork
from worker.runtime.upkeep.thumbnail_jobs import missing_tasks

OpenEyes = Callable[[], Eyes]
UNREADABLE = "The image cannot be read any more. Choose it again."


def measure_all(work: IoWork) -> None:
    """Measure what is not measured yet, each stored at once."""
    eyes = cache(partial(open_eyes, device="cpu"))  # not opened if there are only weights
    tasks = missing_tasks(
        work,
        (measuring.list_adapters, partial(_measure_adapter, eyes)),
        (looks.missing_in_datasets, partial(_measure_images, eyes)),
        (measuring.list_versions, _sketch),
    )
    work.carry_out(tasks)


def measure_image(work: IoWork) -> None:
    """Measure the image in a job, and remove it from there, whatever comes of it."""
    image = _decoded(b64decode(work.job.arguments(MeasureImageArgs).image))
    if image is None:
        values = {"error": UNREADABLE, "error_code": "picture_refused"}
        work.finish(JobStatus.FAILED, args={}, **values)
        return
    look = pack(measure_looks(open_eyes(device="cpu"), [image])[0])
    result = MeasureImageResult(look=b64encode(look).decode())
    work.finish(JobStatus.SUCCEEDED, result=result.stored(), args={})


def _measure_adapter(eyes: OpenEyes, work: IoWork, found: tuple[Adapter, int | None]) -> None:
    with work.database.read() as session:
        row = measuring.images_of(session, *found)
    _measure_images(eyes, work, *row.hashes)
    with work.database.write() as session:
        measuring.save_adapter(session, row)


def _measure_images(eyes: OpenEyes, work: IoWork, *hashes: str) -> None:
    with work.database.read() as session:
        known = looks.find(session, hashes)
    measured = {sha256: _look(eyes, work, sha256) for sha256 in hashes if sha256 not in known}
    with work.database.write() as session:
        looks.save(session, measured)


def _look(eyes: OpenEyes, work: IoWork, sha256: str) -> bytes | None:
    """The packed look of a stored image; None if its file is missing or damaged."""
    try:
        with work.store.open(sha256) as file:
            content = file.read()
    except (BlobNotFound, BlobDamaged):
        return None
    image = _decoded(content)
    return None if image is None else pack(measure_looks(eyes(), [image])[0])


def _sketch(work: IoWork, version: tuple[int, str]) -> None:
    version_id, sha256 = version
    try:
        path = work.store.local_path(sha256, work.scratch)
        sketch = pack(sketch_weights(load_adapter(path)).numpy())
    except (BlobNotFound, BlobDamaged, AdapterError):
        sketch = b""
    with work.database.write() as session:
        of_version = update(AdapterVersion).where(col(AdapterVersion.id) == version_id)
        session.connection().execute(of_version.values(weight_sketch=sketch))


def _decoded(content: bytes) -> Image.Image | None:
    """The image in a file that Brushwork wrote; None if it is damaged."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGBA" if image.has_transparency_data else "RGB")
    except Exception:  # decoders raise SyntaxError, struct.error, OSError and others
        return None
