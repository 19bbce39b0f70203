"""Files nobody refers to go, all others stay: on both databases, in a folder and in a bucket."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel, select

from app.registry.adapters import service
from app.registry.adapters.versions.create_version import NewFile, NewVersion, publish
from app.registry.base_models.service import ensure_embedded
from app.registry.blobs import references
from app.registry.blobs import sweep as sweeping
from app.registry.blobs.sweep import SweepSummary, sweep
from app.registry.db import KEEPS_NO_BLOB, Database, PlainJSON, utcnow
from app.registry.deletion import adapters as deleted
from app.registry.job_kinds.kinds import JobKind, StoredSidecar
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import enqueue
from app.registry.storage import open_store
from app.registry.storage.folder import LocalBlobStore
from app.registry.storage.store import BlobStat, BlobStore
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.jobs import JOB_FILES_KEPT, Event, IoJob
from app.registry.tables.renders import Render, RenderAdapter, RenderImage
from app.registry.tables.runs import Checkpoint, Run, Sample

TOMORROW = timedelta(hours=25)


@dataclass(frozen=True)
class Kept:
    """A database and a store; what is stored in a test is a day old for its sweep."""

    database: Database
    store: BlobStore

    def blob(self, words: str) -> str:
        """The hash of a stored blob with this content."""
        return self.store.put_bytes(words.encode()).sha256

    def sweep(self, **options: Any) -> SweepSummary:
        """A sweep as of tomorrow."""
        return sweep(self.database, self.store, now=utcnow() + TOMORROW, **options)

    def taken(self, **options: Any) -> tuple[int, int]:
        """Number and size of the files that a sweep as of tomorrow moves to the trash."""
        swept = self.sweep(**options)
        assert not swept.report
        return swept.files, swept.size_bytes

    def in_trash(self) -> set[str]:
        """The hashes in the trash."""
        return {blob.sha256 for blob in self.store.list_trash()}

    def left(self) -> set[str]:
        """The hashes that are stored."""
        return {blob.sha256 for blob in self.store.list()}

    def add(self, *rows: SQLModel) -> None:
        """Store rows."""
        with self.database.write() as session:
            for row in rows:
                session.add(row)
                session.flush()


@pytest.fixture(params=["folder", "bucket"])
def kept(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> Kept:
    """A registry that is empty but for its first event."""
    _begin(database)
    url = "memory://" if request.param == "bucket" else None
    return Kept(database, open_store(url, tmp_path / "data"))


@pytest.fixture
def folder(sqlite_database: Database, tmp_path: Path) -> Kept:
    """The same with files in a folder, where they can be made older."""
    _begin(sqlite_database)
    return Kept(sqlite_database, LocalBlobStore(tmp_path / "blobs"))


def _begin(database: Database, *, days_ago: int = 30) -> None:
    with database.write() as session:
        at = utcnow() - timedelta(days=days_ago)
        session.add(Event(at=at, subject="io_job", subject_id=1, kind="queued"))


def age(kept: Kept, sha256: str, *, hours: float = 25) -> None:
    moment = (utcnow() - timedelta(hours=hours)).timestamp()
    os.utime(kept.store.local_path(sha256, Path()), (moment, moment))


def make_run(kept: Kept, items: list[dict[str, Any]]) -> Run:
    with kept.database.write() as session:
        dataset = Dataset(slug="x", name="x")
        session.add(dataset)
        session.flush()
        pinned = DatasetVersion(dataset_id=dataset.key, fingerprint="x", image_count=1, items=items)
        session.add(pinned)
        session.flush()
        run = Run(
            name="x",
            dataset_id=dataset.key,
            dataset_version_id=pinned.key,
            base_model_id=ensure_embedded(session).key,
            config={},
            total_steps=1,
        )
        session.add(run)
        session.flush()
        return run


def make_render(kept: Kept, stack: list[dict[str, Any]], picture: str) -> None:
    with kept.database.write() as session:
        render = Render(
            base_model_id=ensure_embedded(session).key,
            prompt="x",
            seed=1,
            steps=1,
            guidance=1,
            width=64,
            height=64,
            adapters=stack,
            cache_key="x",
            status=JobStatus.SUCCEEDED,
        )
        session.add(render)
        session.flush()
        session.add(RenderImage(render_id=render.key, index=0, seed=1, sha256=picture))
        for entry in stack:
            session.add(RenderAdapter(adapter_id=entry["adapter_id"], render_id=render.key))


def test_what_two_sweeps_take_at_once_stays_in_the_trash(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = kept.blob("of an import that was refused")
    list_trash = kept.store.list_trash

    def list_after_another_sweep() -> Iterator[BlobStat]:
        kept.store.discard(lost, before=utcnow() + TOMORROW)
        return list_trash()

    monkeypatch.setattr(kept.store, "list_trash", list_after_another_sweep)
    assert kept.taken() == (0, 0)
    assert (kept.left(), kept.in_trash()) == (set(), {lost})


def test_what_nobody_refers_to_goes_once_it_is_a_day_old(kept: Kept) -> None:
    lost = {kept.blob("lost"), kept.blob("also lost")}
    assert sweep(kept.database, kept.store).files == 0
    assert kept.taken(dry_run=True) == (2, 13)
    assert kept.left() == lost
    assert kept.taken() == (2, 13)
    assert (kept.left(), kept.in_trash()) == (set(), lost)
    assert kept.taken() == (0, 0)


def test_blobs_that_columns_and_json_refer_to_are_kept(kept: Kept) -> None:
    run = make_run(kept, [{"sha256": kept.blob("a picture"), "caption": "x"}])
    image = Image(
        dataset_id=run.dataset_id,
        sha256="1" * 64,  # of the upload, which is not kept
        clean_sha256=kept.blob("cleaned"),
        thumbnail_sha256=kept.blob("small"),
        filename="x",
        width=1,
        height=1,
        size_bytes=1,
    )
    sample = Sample(
        run_id=run.key, step=1, prompt_index=0, prompt="x", seed=1, sha256=kept.blob("a sample")
    )
    state = Checkpoint(run_id=run.key, step=1, sha256=kept.blob("a state"), size_bytes=1)
    kept.add(image, sample, state)
    new = NewVersion(
        "Chalk",
        "sd1",
        kept.blob("weights"),
        1,
        4,
        4.0,
        cover_sha256=kept.blob("a cover"),
        details={"deep": [{"in": kept.blob("told")}]},
        files=[NewFile("kohya", "fp16", kept.blob("a download"), 1)],
    )
    with kept.database.write() as session:
        key = publish(session, new).adapter_id
        service.order_import(
            session,
            sha256=kept.blob("an upload that waits"),
            filename="x",
            sidecars=[StoredSidecar(name="x.json", sha256=kept.blob("beside it"))],
        )
        service.delete_adapter(session, key)  # can still be restored
    make_render(kept, [], kept.blob("a drawing"))
    before = kept.left()
    kept.blob("lost")
    assert kept.taken() == (1, 4)
    assert kept.left() == before
    assert len(before) == 12


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_what_only_a_job_refers_to_stays_a_week_after_its_end(
    kept: Kept, status: JobStatus
) -> None:
    ages = {"just": timedelta(), "a week": JOB_FILES_KEPT + timedelta(minutes=1)}
    for words, ago in ages.items():
        ended = utcnow() + TOMORROW - ago
        args, result = {"sha256": kept.blob(words)}, {"sha256": kept.blob(f"{words}, made")}
        job = IoJob(kind="x", status=status, finished_at=ended, args=args, result=result)
        kept.add(job)
    old = utcnow() - timedelta(days=30)
    waiting = IoJob(kind="x", created_at=old, args={"sha256": kept.blob("waits")})
    kept.add(waiting)
    assert kept.sweep().files == 2
    words = (b"just", b"just, made", b"waits")
    assert kept.left() == {hashlib.sha256(content).hexdigest() for content in words}


def test_the_weights_of_an_adapter_deleted_for_good_go_and_its_pictures_stay(kept: Kept) -> None:
    weights, picture = kept.blob("weights"), kept.blob("a drawing")
    file = NewFile("kohya", "fp16", kept.blob("a download"), 1)
    with kept.database.write() as session:
        key = publish(session, NewVersion("x", "sd1", weights, 1, 4, 4.0, files=[file])).adapter_id
    make_render(kept, [{"adapter_id": key, "name": "x", "sha256": weights}], picture)
    assert kept.sweep().files == 0
    with kept.database.write() as session:
        service.delete_adapter(session, key)
    assert kept.sweep().files == 0
    with kept.database.write() as session:
        deleted.delete_forever(session, key)
    assert kept.sweep().files == 2
    assert kept.left() == {picture}


def test_thumbnails_stay_as_long_as_a_row_shows_their_image(kept: Kept) -> None:
    picture, small, large = (kept.blob(words) for words in ("drawing", "small", "large"))
    gone, of_gone = kept.blob("of a deleted render"), kept.blob("its thumbnail")
    make_render(kept, [], picture)
    made = Thumbnail(sha256=picture, small_sha256=small, large_sha256=large)
    kept.add(made, Thumbnail(sha256=gone, small_sha256=of_gone))
    assert kept.sweep(dry_run=True).files == 2
    assert kept.sweep().files == 2
    assert kept.left() == {picture, small, large}
    with kept.database.read() as session:
        assert [row.sha256 for row in session.exec(select(Thumbnail))] == [picture]


def test_the_imported_cover_of_an_adapter_deleted_for_good_leaves_nothing(kept: Kept) -> None:
    cover, small = kept.blob("a cover"), kept.blob("small")
    new = NewVersion("x", "sd1", kept.blob("weights"), 1, 4, 4.0, cover_sha256=cover)
    with kept.database.write() as session:
        key = publish(session, new).adapter_id
        session.add(Thumbnail(sha256=cover, small_sha256=small))
        service.delete_adapter(session, key)
    assert kept.sweep().files == 0
    with kept.database.write() as session:
        deleted.delete_forever(session, key)
    assert kept.sweep().files == 3
    with kept.database.read() as session:
        assert session.exec(select(Thumbnail)).all() == []


def at(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """A pulse that does something at its n-th beat."""
    beats = iter(range(1, 10_000))
    return lambda: act() and None if next(beats) == number else None


def test_a_blob_stored_again_during_a_sweep_is_kept(folder: Kept) -> None:
    sha256 = folder.blob("lost")
    age(folder, sha256)
    again = at(2, lambda: folder.blob("lost"))  # after the listing of one blob
    assert sweep(folder.database, folder.store, on_item=again).files == 0
    assert folder.left() == {sha256}
    age(folder, sha256)
    gone = at(2, lambda: folder.store.delete(sha256))
    assert sweep(folder.database, folder.store, on_item=gone).files == 0


def test_a_blob_referred_to_after_the_listing_is_kept(folder: Kept) -> None:
    sha256 = folder.blob("of an old upload")
    age(folder, sha256)
    refer = at(1, lambda: folder.add(IoJob(kind="x", args={"sha256": sha256})))
    assert sweep(folder.database, folder.store, on_item=refer).files == 0
    assert folder.left() == {sha256}


def test_blobs_older_than_the_database_are_kept(database: Database, tmp_path: Path) -> None:
    """An empty database that took the place of a lost one must not cost the files."""
    kept = Kept(database, LocalBlobStore(tmp_path / "blobs"))
    old, new = kept.blob("of the lost one"), kept.blob("of this one")
    age(kept, old, hours=50)
    age(kept, new, hours=30)
    assert kept.taken() == (0, 0)
    _begin(database, days_ago=2)
    assert kept.sweep().files == 1
    assert kept.left() == {old}


def test_a_sweep_can_be_broken_off(folder: Kept) -> None:
    for number in range(3):
        age(folder, folder.blob(str(number)))

    def end() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # three list, the fifth is before the second goes
        sweep(folder.database, folder.store, on_item=at(5, end))
    assert len(folder.left()) == 2
    with folder.database.write() as session:  # nothing is locked
        enqueue(session, IoJob(kind="x"))


def test_many_rows_are_read_a_thousand_at_a_time(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "ROWS_AT_ONCE", 3)
    kept.add(*[IoJob(kind="x", args={"sha256": kept.blob(str(n))}) for n in range(10)])
    kept.blob("lost")
    assert kept.sweep().files == 1


def test_every_table_is_read() -> None:
    """All hashes and all JSON, but for what keeps no blobs."""
    found = {
        f"{table.name}.{column.name}"
        for table in SQLModel.metadata.sorted_tables
        for column in table.columns
        if KEEPS_NO_BLOB in column.info or isinstance(column.type, PlainJSON)
    }
    assert found == {
        "adapter.trigger_words",
        "adapter_file.facts_sha256",
        "adapter_file.proof",
        "adapter_look.cover_sha256",
        "adapter_look.images",
        "adapter_version.config",
        "adapter_version.file_tensor_sha256",
        "adapter_version.tensor_sha256",
        "adapter_version.trigger_words",
        "base_speed.recent_seconds",
        "blind_test.candidates",
        "blob_check.sha256",
        "dataset_edit.before",
        "dataset_edit.settings",
        "erased_hash.sha256",
        "event.data",
        "grid.axes",
        "grid.request",
        "image.sha256",
        "image_look.sha256",
        "image_measure.clean_sha256",
        "own_preset.config",
        "prompt_set.versions",
        "recipe.adapters",
        "render.adapters",
        "run.arithmetic",
        "run.change_requested",
        "run.changes",
        "run.config",
        "run.good_steps",
        "run.own_preset",
        "source_user.sha256",
        "sweep.plan",
        "sweep.result",
        "thumbnail.sha256",
    }
    read = {
        column
        for table in SQLModel.metadata.sorted_tables
        for columns in references.reference_columns(table)
        for column in columns
    }
    for table, name in (
        (AdapterVersion, "details"),
        (AdapterFile, "sha256"),
        (Adapter, "cover_sha256"),
        (DatasetVersion, "items"),
        (IoJob, "args"),
        (IoJob, "result"),
    ):
        assert SQLModel.metadata.tables[str(table.__tablename__)].c[name] in read
    json = {c for t in SQLModel.metadata.sorted_tables for c in t.columns if _is_json(c)}
    assert {f"{c.table.name}.{c.name}" for c in json - read} < found


def _is_json(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, sa.JSON)


def test_a_longer_number_is_no_hash() -> None:
    sha256 = hashlib.sha256(b"x").hexdigest()
    assert references.HASH.findall(f'["{sha256}", "/media/{sha256}"]') == [sha256, sha256]
    assert references.HASH.findall(f'"{sha256}0"') == []


def test_a_sweep_is_due_once_a_day(database: Database) -> None:
    first = sweeping.order_if_due(database)
    assert first is not None
    assert sweeping.order_if_due(database) is None
    for hours, is_due in ((23, False), (25, True)):
        with database.write() as session:
            row = session.get_one(IoJob, first.key)
            row.status, row.finished_at = JobStatus.FAILED, utcnow() - timedelta(hours=hours)
            session.add(row)
        assert (sweeping.order_if_due(database) is not None) == is_due


def test_of_workers_that_ask_at_once_one_gets_it(database: Database) -> None:
    barrier = threading.Barrier(4)

    def race(_: int) -> IoJob | None:
        barrier.wait()
        return sweeping.order_if_due(database)

    with ThreadPoolExecutor(4) as pool:
        assert sum(job is not None for job in pool.map(race, range(4))) == 1
    with database.read() as session:
        (job,) = session.exec(select(IoJob))
    assert (job.kind, job.priority) == (JobKind.SWEEP, sweeping.SWEEP_PRIORITY)
