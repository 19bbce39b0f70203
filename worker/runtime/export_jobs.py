"""The io jobs that write downloads: the facts of the registry in, a proved file and its row out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sqlmodel import Session, select

from app.adapters.models import Adapter, AdapterTag, AdapterVersion
from app.adapters.publish import NewFile, add_file
from app.adapters.service import DownloadDtype, DownloadFormat, find_file
from app.base_models import service as base_models
from app.base_models.models import BaseModel
from app.datasets.models import DatasetVersion
from app.db import Database
from app.jobs import service as jobs
from app.jobs.models import IoJob
from app.jobs.states import JobStatus
from app.storage import BlobStore
from worker.runtime.importing import RefusedError
from worker.runtime.lease import Lease
from worker.runtime.messages import Export, ExportFile, Facts


class Exporting:
    """Writes a download that somebody asked for."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path) -> None:
        """Write, prove and store the file that a job asks for; RefusedError when it fails."""
        assert job.subject_id is not None
        form, dtype = job.args["format"], job.args["dtype"]
        with_tags = bool(job.args.get("with_tags"))
        file = self._write(job.subject_id, form, dtype, scratch, with_tags=with_tags)
        with self._database.write() as session:
            result = {"sha256": file.sha256}
            jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED, result=result)
            add_file(session, job.subject_id, file)

    def download(self, version_id: int, form: str, dtype: str, scratch: Path) -> NewFile:
        """The proved download of a version, written now when nobody asked for it before."""
        with self._database.read() as session:
            found = find_file(session, version_id, DownloadFormat(form), DownloadDtype(dtype))
        if found is not None:
            return NewFile(form, dtype, found.sha256, found.size_bytes, proof=found.proof)
        file = self._write(version_id, form, dtype, scratch, with_tags=False)
        with self._database.write() as session:
            add_file(session, version_id, file)
        return file

    def _write(
        self, version_id: int, form: str, dtype: str, scratch: Path, *, with_tags: bool
    ) -> NewFile:
        from worker.adapters.canonical import AdapterError
        from worker.runtime.exporting import write_downloads

        with self._database.read() as session:
            version = session.get_one(AdapterVersion, version_id)
            facts = self._facts(session, version, scratch, with_tags=with_tags)
            base = _base(session, version)
        ending = "zip" if form == DownloadFormat.BUNDLE else "safetensors"
        file = ExportFile(form, dtype, scratch / f"download-{form}-{dtype}.{ending}")
        canonical = self._store.local_path(version.sha256, scratch)
        where = base_models.location(base) if base is not None else None
        try:
            (written,) = write_downloads(canonical, Export([file], facts, where))
        except AdapterError as error:
            raise RefusedError("adapter", str(error)) from error
        if written.problem:
            raise RefusedError("proof", written.problem)
        blob = self._store.put_file(written.path)
        return NewFile(
            form, dtype, blob.sha256, blob.size, proof=written.proof, with_tags=with_tags
        )

    def _facts(
        self, session: Session, version: AdapterVersion, scratch: Path, *, with_tags: bool
    ) -> Facts:
        adapter = session.get_one(Adapter, version.adapter_id)
        base = _base(session, version)
        tags = select(AdapterTag.tag).where(AdapterTag.adapter_id == adapter.key)
        cover = adapter.cover_sha256
        shown = cover is not None and self._store.exists(cover)
        predicted = version.config.get("prediction_type") or (base and base.prediction_type)
        return Facts(
            title=adapter.name,
            slug=file_slug(adapter.slug, version.version),
            family=adapter.base_family,
            base_name=base.name if base else "",
            resolution=version.config.get("resolution") or (base and base.resolution) or 512,
            created=version.created_at.isoformat(),
            prediction_type=str(predicted or "epsilon"),
            trigger_words=list(adapter.trigger_words),
            description=adapter.notes if with_tags else "",
            licence=adapter.licence,
            tags=sorted(session.exec(tags)) if with_tags else [],
            images=version.details.get("images"),
            cover=self._store.local_path(cover, scratch) if cover and shown else None,
            config=version.config,
            tag_counts=caption_tags(session, version) if with_tags else {},
        )


def file_slug(slug: str, version: int) -> str:
    """The name inside a file, by which web UIs know it: each version has its own."""
    return slug if version == 1 else f"{slug}-v{version}"


def caption_tags(session: Session, version: AdapterVersion) -> dict[str, int]:
    """How often each part between commas stands in the captions that a version learned from."""
    pinned = session.get(DatasetVersion, version.dataset_version_id or 0)
    captions = [str(item.get("caption", "")) for item in pinned.items] if pinned else []
    tags = (tag.strip() for caption in captions for tag in caption.split(","))
    return dict(Counter(tag for tag in tags if tag))


def _base(session: Session, version: AdapterVersion) -> BaseModel | None:
    return session.get(BaseModel, version.base_model_id) if version.base_model_id else None
