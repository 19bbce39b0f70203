"""The io worker measures looks once; a dropped image is measured and not kept."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from pathlib import Path

from PIL import Image as Picture
from sqlmodel import select

from app.registry.job_kinds.kinds import JobKind, MeasureImageArgs
from app.registry.jobs.service import enqueue_io
from app.registry.likeness import measuring, similar
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.blobs import AdapterLook, ImageLook
from app.registry.tables.jobs import IoJob
from tests.worker.runtime.job_loops import Registry, add_images
from tests.worker.runtime.test_tool_jobs import add, work_of
from worker.core.likeness import FEATURES, unpack


def picture(color: str) -> bytes:
    content = io.BytesIO()
    Picture.new("RGB", (64, 64), color).save(content, "WEBP")
    return content.getvalue()


def with_cover(registry: Registry, adapter: Adapter, cover: bytes) -> None:
    sha256 = registry.store.put_bytes(cover).sha256
    with registry.database.write() as session:
        session.get_one(Adapter, adapter.key).cover_sha256 = sha256


def test_adapters_datasets_and_weights_are_measured_once_and_damaged_ones_too(
    registry: Registry, tmp_path: Path
) -> None:
    red, pink, torn = (
        add(registry, tmp_path, name, seed) for seed, name in enumerate(("Red", "Pink", "Torn"))
    )
    blue = add(registry, tmp_path, "Blue", 3)
    for adapter, cover in (
        (red, picture("red")),
        (pink, picture("pink")),
        (blue, picture("navy")),
        (torn, picture("red")[:40]),
    ):
        with_cover(registry, adapter, cover)
    add_images(registry)
    job = measuring.order_if_due(registry.database)
    assert job is not None
    assert measuring.order_if_due(registry.database) is None  # it is at work
    with registry.working(work_of(registry)):
        done = registry.until_final(IoJob, job.key)
    assert done.status == "succeeded"
    assert measuring.order_if_due(registry.database) is None
    with registry.database.read() as session:
        found = similar.list_similar(session, similar.of_adapter(session, red.key), limit=5)
        assert [one.summary.adapter.name for one in found.items] == ["Pink", "Blue"]
        assert (found.without, found.waiting) == (1, 0)  # the torn one
        assert similar.of_dataset(session, registry.dataset_id).measured.images
        assert session.get_one(AdapterLook, torn.key).look is None
        sketches = session.exec(select(AdapterVersion.weight_sketch)).all()
    assert all(sketches)


def test_a_dropped_image_is_measured_and_gone_from_the_job(registry: Registry) -> None:
    good, bad = (b64encode(one).decode() for one in (picture("red"), b"%PDF-1.7"))
    with registry.database.write() as session:
        jobs = [enqueue_io(session, MeasureImageArgs(image=one)).key for one in (good, bad)]
    with registry.working(work_of(registry)):
        ended = [registry.until_final(IoJob, key) for key in jobs]
    assert [(job.kind, job.status, job.args) for job in ended] == [
        (JobKind.MEASURE_IMAGE, "succeeded", {}),
        (JobKind.MEASURE_IMAGE, "failed", {}),
    ]
    assert unpack([b64decode(ended[0].result["look"])]).shape == (1, FEATURES)
    assert ended[1].error == "The image cannot be read any more. Choose it again."
    with registry.database.read() as session:
        assert session.exec(select(ImageLook)).all() == []
