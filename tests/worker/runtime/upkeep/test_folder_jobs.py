"""Adapters kept in the LoRA folders of other programs, written by a real io worker."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from app.registry.adapters import folders
from app.registry.adapters import service as adapters
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.config import Settings
from app.registry.tables.adapters import LATEST, Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import Registry
from worker.core.lora_files.reading import read_adapter
from worker.runtime.io_jobs import IoJobs
from worker.runtime.upkeep import folder_jobs


class Kept:
    """An adapter of its own with one version, and a folder that may be missing."""

    def __init__(self, trained: TrainedRegistry, folder: Path) -> None:
        self.registry: Registry = trained.registry
        self.folder = folder
        told = {"export_folders": f"ComfyUI={folder}"}
        self.settings: Settings = self.registry.settings.model_copy(update=told)
        run = self.registry.row(Run, trained.run_id)
        source = self.registry.row(AdapterVersion, run.adapter_version_id)
        file = {"sha256": source.sha256, "size_bytes": source.size_bytes, "rank": source.rank}
        self.new = NewVersion(
            folder.parent.name,
            "sd1",
            alpha=source.alpha,
            trigger_words=("chalk",),
            base_model_id=self.registry.base_id,
            **file,
        )
        self.adapter = self.publish()
        self.stem = self.adapter.slug

    def publish(self, adapter_id: int | None = None) -> Adapter:
        with self.registry.database.write() as session:
            version = publish(session, self.new, adapter_id=adapter_id)
            return session.get_one(Adapter, version.adapter_id)

    def keep(self, version: str = LATEST, *, removes: bool = False) -> IoJob:
        with self.registry.database.write() as session:
            if removes:
                kept = folders.remove(session, self.adapter.key, "ComfyUI", version)
            else:
                kept = folders.keep(session, self.settings, self.adapter, "ComfyUI", version)
        return self.ended(kept.job.key)

    def order_due(self) -> None:
        folders.order_due(self.settings, self.registry.database)

    def ended(self, key: int | None = None) -> IoJob:
        """The job, or the only one of the adapter, once it has ended."""
        if key is None:
            rows = self.registry.rows(IoJob, kind="keep_in_folder", subject_id=self.adapter.key)
            (key,) = [row.key for row in rows]
        job: IoJob = self.registry.until_final(IoJob, key)
        return job

    def path(self, ending: str, stem: str = "") -> Path:
        return self.folder / f"{stem or self.stem}{ending}"


@pytest.fixture
def kept(
    trained: TrainedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kept]:
    monkeypatch.setattr(folders, "RETRY_AFTER", timedelta(0))
    made = Kept(trained, tmp_path / "loras")
    registry = made.registry
    with registry.working(IoJobs(made.settings, registry.database, registry.store)):
        yield made


def test_a_version_in_use_is_kept_up_to_date_with_sidecar_and_then_removed(kept: Kept) -> None:
    kept.folder.mkdir()
    job = kept.keep()
    assert (job.status, job.error) == ("succeeded", None)
    assert sorted(file.name for file in kept.folder.iterdir()) == [
        f"{kept.stem}.json",
        f"{kept.stem}.safetensors",
    ]
    assert json.loads(kept.path(".json").read_text())["activation text"] == "chalk"
    assert read_adapter(kept.path(".safetensors")).modules
    kept.order_due()
    assert kept.ended().key == job.key  # nothing is out of date
    kept.publish(kept.adapter.key)  # `latest` moves
    with kept.registry.database.write() as session:
        adapters.change_adapter(
            session, kept.adapter.key, adapters.AdapterChange(trigger_words=["slate"])
        )
    kept.path(".json").write_text("edited in the program")
    kept.order_due()
    assert kept.ended().result["version"] == 2
    assert b"slate" in kept.path(".safetensors").read_bytes()
    assert kept.path(".json").read_text() == "edited in the program"
    assert kept.keep("1").result["version"] == 1
    assert kept.path(".safetensors", f"{kept.stem}_v1").is_file()
    kept.keep(removes=True)
    kept.keep("v1", removes=True)
    assert [file.name for file in kept.folder.iterdir()] == [f"{kept.stem}.json"]
    with kept.registry.database.read() as session:
        assert all(
            row.job.subject_id != kept.adapter.key for row in folders.list_kept(session, "ComfyUI")
        )


def test_a_file_of_another_is_never_replaced(kept: Kept, tmp_path: Path) -> None:
    kept.folder.mkdir()
    theirs = kept.path(".safetensors")
    theirs.write_bytes(b"theirs")
    job = kept.keep()
    assert (job.status, job.error_code) == ("failed", "file_in_the_way")
    assert f"{theirs} is not a file that Brushwork wrote" in (job.error or "")
    assert [file.name for file in kept.folder.iterdir()] == [theirs.name]
    outside = tmp_path / "outside"
    theirs.rename(outside)
    theirs.symlink_to(outside)
    kept.order_due()
    assert (kept.ended().key, kept.ended().status) == (job.key, "failed")  # it is not tried in vain
    theirs.unlink()
    kept.order_due()
    assert kept.ended().status == "succeeded"
    assert outside.read_bytes() == b"theirs"


def test_a_folder_that_is_missing_or_full_is_tried_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = kept.keep()
    assert "cannot be used: No such file or directory" in (job.error or "")
    assert not kept.folder.exists()
    kept.order_due()
    assert kept.ended().key == job.key  # nothing is tried while it is away
    kept.folder.mkdir()

    @contextmanager
    def full(path: Path) -> Iterator[None]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(folder_jobs, "replacing", full)
        kept.order_due()
        assert "cannot be used: No space left on device" in (kept.ended().error or "")
    kept.order_due()
    assert kept.ended().status == "succeeded"
