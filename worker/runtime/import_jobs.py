"""A LoRA file made elsewhere becomes a version of an adapter: read, checked, converted, stored."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.adapters.models import Adapter, AdapterVersion
from app.registry.adapters.service import AdapterChange
from app.registry.adapters.versions.create_version import NewVersion, find_equal, publish
from app.registry.adapters.versions.duplicates import same_tensors
from app.registry.base_models import service as base_models
from app.registry.base_models.models import BaseModel, BaseModelStatus
from app.registry.datasets.images import ImageDecoder, PictureRefused
from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.jobs.kinds import ImportAdapterArgs, ImportAdapterResult
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import JobStatus
from app.registry.storage.store import BlobStore
from worker.core.bases.family import FALLBACK_FAMILY, BaseModelError, family_label
from worker.core.lora_files.read_metadata import Sidecar, SourceMetadata, read_source_metadata
from worker.runtime.job_progress import Pulse, require_wanted, steered
from worker.runtime.lease import Lease

if TYPE_CHECKING:
    from worker.core.lora_files.file_layout import FileLayout
    from worker.core.lora_files.reading import AdapterReading

PUBLISH_TRIES = 5
MAX_FILENAME = 200
FITS_NOTHING = (
    "This adapter fits no base that is known here: {reason} Accepted are adapters for SD 1.x, "
    "SD 2.x, SDXL and for the base models you have added."
)
NO_BASE = (
    "None of the base models here is of this family ({family}); add one to draw with this adapter."
)
ON_ITS_OWN = "Import it as an adapter of its own."


class RefusedError(Exception):
    """The job cannot be done; the sentence says why."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Place:
    """What an adapter is for: a base of the registry or, without one, a family by its shapes."""

    family: str
    shapes: Mapping[str, tuple[int, ...]]
    base: BaseModel | None


class Importing:
    """Takes in one file after the other for the io worker."""

    def __init__(self, database: Database, store: BlobStore) -> None:
        self._database = database
        self._store = store

    def run(self, job: IoJob, lease: Lease, scratch: Path, stopping: threading.Event) -> None:
        """Make an adapter of the job's file, or find the one that it is.

        Singular values of whole layers can take minutes: a worker that ends gives the job back.
        """
        from worker.core.lora_files.canonical import AdapterError

        try:
            with steered(self._database, lease, stopping) as pulse:
                self._take_in(job, lease, scratch, pulse)
        except AdapterError as error:
            raise RefusedError("adapter", str(error)) from error

    def _take_in(self, job: IoJob, lease: Lease, scratch: Path, pulse: Pulse) -> None:
        from worker.core.lora_files import canonical
        from worker.core.lora_files.file_layout import read_layout
        from worker.core.lora_files.reading import convert_layout
        from worker.runtime.save_result import tensor_hash

        args = job.arguments(ImportAdapterArgs)
        uploaded = args.sha256
        found = read_layout(self._store.local_path(uploaded, scratch))
        hash_of_file = tensor_hash(found.path)
        wanted = args.base_model_id  # has to fit, whether the file is known or not
        named = self._place(found, wanted) if wanted is not None else None
        if self._is_known(lease, None if _tells_alpha_apart(found) else hash_of_file, uploaded):
            return
        place = named or self._place(found, None)
        if args.adapter_id is not None:
            place = self._beside(args.adapter_id, found, place)
        weights = self._weights(found, place)
        reading = convert_layout(found.with_shapes(place.shapes), weights, on_module=pulse)
        path = scratch / "canonical.safetensors"
        # without metadata, so that the same tensors have the same hash whoever wrote them
        canonical.save_adapter(canonical.LoraAdapter(reading.adapter.modules), path)
        blob = self._store.put_file(path)
        told = read_source_metadata(found.metadata, self._sidecars(args, scratch), args.filename)
        notes = list(reading.notes)
        if place.base is None:
            notes.append(NO_BASE.format(family=family_label(place.family)))
        cover, refusal = self._cover(told, scratch)
        notes += [refusal] if refusal else []
        rank, alpha = _middle(reading)
        new = NewVersion(
            name=told.name,
            base_family=place.family,
            sha256=blob.sha256,
            size_bytes=blob.size,
            tensor_sha256=tensor_hash(path),
            rank=rank,
            alpha=alpha,
            trigger_words=told.trigger_words,
            licence=told.license,
            base_model_id=place.base.key if place.base else None,
            trainable_parameters=reading.adapter.parameters,
            cover_sha256=cover,
            details={
                "imported": args.filename[:MAX_FILENAME],
                "modules": len(reading.adapter.modules),
                "kinds": dict(found.kinds),
                "namings": sorted(str(naming) for naming in found.namings),
                "tensor_sha256": hash_of_file,
                "import_notes": notes,
                "source_sha256": uploaded,
                "converted": reading.is_converted,
            }
            | ({"author": told.author} if told.author else {}),
        )
        self._publish(args, lease, new, told)

    def _is_known(self, lease: Lease, hash_of_file: str | None, uploaded: str) -> bool:
        """Whether a version is this file or has these tensors; the job then ends with it."""
        with self._database.write() as session:
            known = same_tensors(session, hash_of_file) if hash_of_file else None
            known = known or find_equal(session, canonical=uploaded, uploaded=uploaded)
            if known is None:
                return False
            jobs.require_owner(session, IoJob, lease.claim)
            result = ImportAdapterResult(
                adapter_id=known.adapter_id, version=known.version, duplicate=True
            ).stored()
            jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED, result=result)
        return True

    def _place(self, found: FileLayout, wanted: Any) -> Place:
        """The base that was asked for or the oldest that fits; else a family that fits."""
        from worker.core.bases.family import BaseFamily
        from worker.core.lora_files.families import family_shapes
        from worker.core.lora_files.reading import matching_families

        misfits = []
        for base, shapes in self._bases(wanted):
            misfit = _misfit(found, shapes, f"“{base.name}”")
            if not misfit[0]:
                return Place(base.family or FALLBACK_FAMILY, shapes, base)
            misfits.append(misfit)
        if wanted is not None:
            raise RefusedError(
                "adapter", misfits[0][1] if misfits else "This base model cannot be used yet."
            )
        if families := matching_families(found):
            family = _told_family(found.metadata, families)
            return Place(family, family_shapes(family), None)
        for family in BaseFamily:
            misfits.append(_misfit(found, family_shapes(family), family.label))
        raise RefusedError("adapter", FITS_NOTHING.format(reason=min(misfits)[1]))

    def _bases(self, wanted: Any) -> list[tuple[BaseModel, dict[str, tuple[int, ...]]]]:
        from worker.core.lora_files.adaptable_shapes import adaptable_shapes

        with self._database.read() as session:
            ready = select(BaseModel).where(BaseModel.status == BaseModelStatus.READY)
            if wanted is not None:
                ready = ready.where(BaseModel.id == int(wanted))
            bases = list(session.exec(ready.order_by(col(BaseModel.id))))
        found = []
        for base in bases:
            try:
                found.append((base, adaptable_shapes(base_models.location(base))))
            except BaseModelError:
                continue
        return found

    def _weights(self, found: FileLayout, place: Place) -> Any:
        """The base's weights, where a module cannot be read without them."""
        if place.base is None or not any(module.is_dora for module in found.modules):
            return None
        from worker.core.lora_files.base_weights import open_base_weights

        try:
            return open_base_weights(base_models.location(place.base))
        except BaseModelError as error:
            raise RefusedError("adapter", str(error)) from error

    def _sidecars(self, args: ImportAdapterArgs, scratch: Path) -> list[Sidecar]:
        sidecars = []
        for number, sent in enumerate(args.sidecars):
            path = scratch / f"sidecar-{number}"
            with self._store.open(sent.sha256) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            sidecars.append(Sidecar(sent.name, path))
        return sidecars

    def _cover(self, told: SourceMetadata, scratch: Path) -> tuple[str | None, str | None]:
        """(blob of the picture that came along, None), or (None, why it was left out)."""
        if told.image is None:
            return None, None
        source = scratch / "picture"
        source.write_bytes(told.image)
        try:
            with ImageDecoder(processes=1) as decoder:
                picture = decoder.decode(source, scratch)
        except PictureRefused as error:
            return None, f"The picture that came with the file was left out. {error.detail}"
        return self._store.put_file(picture.thumbnail).sha256, None

    def _beside(self, adapter_id: int, found: FileLayout, place: Place) -> Place:
        """The place of a file that shall be the next version of an adapter; refuses any other.

        A family alone tells too little: the starter has other shapes than any other SD 1.x.
        """
        with self._database.read() as session:
            adapter = session.get_one(Adapter, adapter_id)
            newest = adapters.get_version(session, adapter)
        if adapter.base_family != place.family:
            raise RefusedError(
                "adapter",
                f"This file is for {family_label(place.family)}, and “{adapter.name}” is for "
                f"{adapter.family_label}. {ON_ITS_OWN}",
            )
        own = self._place_of(newest, adapter.base_family)
        if own is None:
            return place
        name = f"“{own.base.name}”" if own.base else family_label(own.family)
        misfit, sentence = _misfit(found, own.shapes, name)
        if misfit:
            raise RefusedError("adapter", f"{sentence} {ON_ITS_OWN}")
        return own if own.base else place

    def _place_of(self, version: AdapterVersion, family: str) -> Place | None:
        """What a version is for; None where its base is not here any more."""
        from worker.core.bases.family import BaseFamily
        from worker.core.lora_files.families import family_shapes

        if version.base_model_id is None:
            return Place(family, family_shapes(BaseFamily(family)), None)
        bases = self._bases(version.base_model_id)
        return Place(family, bases[0][1], bases[0][0]) if bases else None

    def _publish(
        self, args: ImportAdapterArgs, lease: Lease, new: NewVersion, told: SourceMetadata
    ) -> None:
        for attempt in range(PUBLISH_TRIES):
            try:
                with self._database.write() as session:
                    require_wanted(session, lease)
                    version = find_equal(
                        session,
                        canonical=new.sha256,
                        uploaded=new.sha256,
                        tensors=new.tensor_sha256,
                    )
                    duplicate = version is not None
                    if version is None:
                        version = publish(session, new, adapter_id=args.adapter_id)
                        _describe(session, version.adapter_id, told)
                    result = ImportAdapterResult(
                        adapter_id=version.adapter_id,
                        version=version.version,
                        duplicate=duplicate,
                        notes=() if duplicate else tuple(new.details["import_notes"]),
                    ).stored()
                    jobs.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED, result=result)
                return
            except sa.exc.IntegrityError:  # somebody took the name in this moment
                if attempt == PUBLISH_TRIES - 1:
                    raise


def _tells_alpha_apart(found: FileLayout) -> bool:
    """Whether a LoRA's alpha is no tensor: equal tensors are then no sign of an equal strength.

    PEFT's lies in the header, where a copy may have lost it; only the canonical form tells.
    """
    from worker.core.lora_files.keys import Leaf

    return any(Leaf.DOWN in m.names and Leaf.ALPHA not in m.names for m in found.modules)


def _describe(session: Session, adapter_id: int, told: SourceMetadata) -> None:
    """Add what the file says of itself where nobody has said anything yet."""
    adapter = session.get_one(Adapter, adapter_id)
    tags = adapters.summary(session, adapter).tags
    change = AdapterChange(
        notes=told.description if told.description and not adapter.notes else None,
        tags=list(told.tags) if told.tags and not tags else None,
    )
    adapters.change_adapter(session, adapter_id, change)


def _misfit(
    found: FileLayout, shapes: Mapping[str, tuple[int, ...]], base_name: str
) -> tuple[int, str]:
    """(how many modules do not fit a base, the sentence on it)."""
    from worker.core.lora_files.compatible import explain_mismatch, mismatched_modules

    placed = found.with_shapes(shapes)
    return len(mismatched_modules(placed, shapes)), explain_mismatch(
        placed, shapes, base_name=base_name
    ) or ""


def _middle(reading: AdapterReading) -> tuple[int, float]:
    """(rank, alpha) of the module in the middle, by rank."""
    modules = sorted(reading.adapter.modules, key=lambda module: module.rank)
    middle = modules[len(modules) // 2]
    return middle.rank, middle.alpha


def _told_family(metadata: Mapping[str, str], families: list[Any]) -> Any:
    """The family the header names, of those that fit; a file of an encoder alone fits two."""
    from worker.core.lora_files.reading import family_from_metadata

    told = family_from_metadata(metadata)
    return told if told in families else families[0]
