"""Import jobs: read, check, convert and store a LoRA file as a version of an adapter.

Importing this module loads torch and diffusers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.adapters.service import AdapterChange
from app.registry.adapters.versions.create_version import NewVersion, find_equal, publish
from app.registry.blobs import findings, thumbnails
from app.registry.blobs.report import report
from app.registry.images.decoder import ImageDecoder, ImageRefused
from app.registry.job_kinds.kinds import LOSS_CODE, ImportAdapterArgs, ImportAdapterResult
from app.registry.jobs import service as jobs
from app.registry.likeness import similar
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.jobs import IoJob
from app.registry.wording import join_words
from worker.core.bases.family import BaseModelError
from worker.core.families.adapter_files import denoiser_of, family_of_header, family_shapes
from worker.core.families.family import FALLBACK_FAMILY, BaseFamily, family_label, labels
from worker.core.likeness import pack
from worker.core.lora_files import canonical
from worker.core.lora_files.base_layers import adaptable_shapes, open_base_weights
from worker.core.lora_files.compatible import explain_mismatch, mismatched_modules
from worker.core.lora_files.errors import AdapterError, LossError
from worker.core.lora_files.file_layout import FileLayout, read_layout
from worker.core.lora_files.keys import Leaf, Naming
from worker.core.lora_files.peft_settings import is_config_file
from worker.core.lora_files.read_metadata import (
    MAX_NAME,
    Sidecar,
    SourceMetadata,
    read_source_metadata,
)
from worker.core.lora_files.reading import AdapterReading, convert_layout, matching_families
from worker.core.lora_files.sketch import sketch_weights
from worker.core.safetensors_header import tensor_hash
from worker.core.wording import shortened
from worker.runtime.job_progress import (
    IoWork,
    JobProgress,
    RefusedError,
    require_not_canceled,
    succeed,
)

PUBLISH_TRIES = 5
MAX_FILENAME = 200
MAX_SHOWN_NAME = 500  # characters of a long name in a note
SHORTENED = "Its name was shortened to {most} characters. In full: “{name}”."
FITS_NOTHING = (
    "This adapter fits no known base model: {reason} Choose an adapter for {families}, or add its "
    "base model first."
)
NO_BASE = (
    "No base model here belongs to this family ({family}). Add one to generate with this adapter."
)
NEARLY_SAME = "Its weights are nearly the same as those of {names}."
AS_NEW_ADAPTER = "Import it as a new adapter."


@dataclass(frozen=True)
class ImportTarget:
    """The target of an adapter: a base model of the registry, or a family with its shapes."""

    family: str
    shapes: Mapping[str, tuple[int, ...]]
    base: BaseModel | None


def run(work: IoWork) -> None:
    """Create an adapter from the job's file, or find an existing identical one.

    Decomposing full layers can take minutes, so a stopping worker returns the job to the queue.
    """
    try:
        with work.cancelable() as progress:
            _take_in(work, progress)
    except LossError as error:
        work.note(ImportAdapterResult(loss=error.loss))
        raise RefusedError(LOSS_CODE, str(error)) from error
    except AdapterError as error:
        raise RefusedError("adapter", str(error)) from error


def _take_in(work: IoWork, progress: JobProgress) -> None:
    args = work.job.arguments(ImportAdapterArgs)
    uploaded = args.sha256
    sidecars = _sidecars(work, args)
    config = next((s.path for s in sidecars if is_config_file(s.path)), None)
    found = read_layout(work.store.local_path(uploaded, work.scratch), config)
    hash_of_file = tensor_hash(found.path)
    wanted = args.base_model_id  # must fit, even if the file is known
    named = _place(work, found, wanted) if wanted is not None else None
    same = None if _lacks_alpha_tensors(found) else hash_of_file
    if not _needs_config(found) and _is_known(work, same, uploaded):
        return
    place = named or _place(work, found, None)
    if args.adapter_id is not None:
        place = _beside(work, args.adapter_id, found, place)
    weights = _weights(work, found, place)
    reading = convert_layout(
        found.with_shapes(place.shapes),
        weights,
        on_module=progress,
        allow_loss=args.allow_loss,
    )
    path = work.scratch / "canonical.safetensors"
    # without metadata, so that identical tensors have the same hash
    canonical.save_adapter(canonical.LoraAdapter(reading.adapter.modules), path)
    blob = work.store.put_file(path)
    about_file = read_source_metadata(found.metadata, sidecars, args.filename)
    notes = list(reading.notes)
    if place.base is None:
        notes.append(NO_BASE.format(family=family_label(place.family)))
    if whole := about_file.long_name:
        notes.append(SHORTENED.format(most=MAX_NAME, name=shortened(whole, MAX_SHOWN_NAME)))
    cover, refusal = _cover(work, about_file)
    notes += [refusal] if refusal else []
    sketch = pack(sketch_weights(reading.adapter).numpy())
    with work.database.read() as session, work.seeing_as_owner(session):
        near = similar.near_weights(session, sketch, place.family, besides=args.adapter_id)
    notes += [NEARLY_SAME.format(names=join_words(near))] if near else []
    rank, alpha = _middle(reading)
    new = NewVersion(
        name=about_file.name,
        base_family=place.family,
        sha256=blob.sha256,
        size_bytes=blob.size,
        tensor_sha256=tensor_hash(path),
        weight_sketch=sketch,
        rank=rank,
        alpha=alpha,
        trigger_words=about_file.trigger_words,
        license=about_file.license,
        base_model_id=place.base.key if place.base else None,
        trainable_parameters=reading.adapter.parameters,
        cover_sha256=cover.sha256 if cover else None,
        usual_weight=about_file.usual_weight,
        details={
            "imported": shortened(args.filename, MAX_FILENAME),
            "modules": len(reading.adapter.modules),
            "kinds": dict(found.kinds),
            "namings": sorted(str(naming) for naming in found.namings),
            "tensor_sha256": hash_of_file,
            "import_notes": notes,
            "loss": reading.loss,
            "source_sha256": uploaded,
            "converted": reading.is_converted,
        }
        | ({"author": about_file.author} if about_file.author else {}),
    )
    _publish(work, args, new, about_file, cover)


def _is_known(work: IoWork, hash_of_file: str | None, uploaded: str) -> bool:
    """True if a version has these tensors or is this file; the job then ends with it.

    Not if the weights of that version are damaged: the import then stores them again.
    """
    with work.database.read() as session, work.seeing_as_owner(session):
        known = _find_known(session, hash_of_file, uploaded)
    if known is None or not _is_sound(work, known):
        return False
    with work.database.write() as session:
        with work.seeing_as_owner(session):
            known = _find_known(session, hash_of_file, uploaded)
        if known is None:
            return False
        findings.forget_problems(session, uploaded)
        jobs.require_owner(session, IoJob, work.lease.claim)
        result = ImportAdapterResult(
            adapter_id=known.adapter_id, version=known.version, duplicate=True
        )
        succeed(session, work.lease, result)
    return True


def _is_sound(work: IoWork, version: AdapterVersion) -> bool:
    try:
        work.store.checked_stat(version.sha256)
    except (BlobNotFound, BlobDamaged) as error:
        report(work.database, error)
        return False
    return True


def _place(work: IoWork, found: FileLayout, wanted: Any) -> ImportTarget:
    """The requested base model or the oldest that fits; otherwise a family that fits."""
    misfits = []
    for base, shapes in _bases(work, wanted):
        misfit = _misfit(found, shapes, f"“{base.name}”")
        if not misfit[0]:
            return ImportTarget(base.family or FALLBACK_FAMILY, shapes, base)
        misfits.append(misfit)
    if wanted is not None:
        raise RefusedError(
            "adapter",
            misfits[0][1]
            if misfits
            else "This base model is not ready. Wait until it is, or choose another.",
        )
    if families := matching_families(found):
        family = _stated_family(found.metadata, families)
        return ImportTarget(family, family_shapes(family), None)
    kind, _ = denoiser_of({module.key: module.weight_shape for module in found.modules})
    for family in BaseFamily:
        if denoiser_of(family_shapes(family))[0] == kind:
            misfits.append(_misfit(found, family_shapes(family), family.label))
    reason, known = min(misfits)[1], labels(BaseFamily, "or")
    raise RefusedError("adapter", FITS_NOTHING.format(reason=reason, families=known))


def _bases(work: IoWork, wanted: Any) -> list[tuple[BaseModel, dict[str, tuple[int, ...]]]]:
    with work.database.read() as session, work.seeing_as_owner(session):
        ready = select(BaseModel).where(BaseModel.status == ModelStatus.READY)
        if wanted is not None:
            ready = ready.where(BaseModel.id == int(wanted))
        bases = list(session.exec(ready.order_by(col(BaseModel.id))))
    found = []
    for base in bases:
        try:
            found.append((base, adaptable_shapes(base.location)))
        except BaseModelError:
            continue
    return found


def _weights(work: IoWork, found: FileLayout, place: ImportTarget) -> Any:
    """The base model's weights, if a module needs them (DoRA)."""
    if place.base is None or not any(module.is_dora for module in found.modules):
        return None
    try:
        return open_base_weights(place.base.location)
    except BaseModelError as error:
        raise RefusedError("adapter", str(error)) from error


def _sidecars(work: IoWork, args: ImportAdapterArgs) -> list[Sidecar]:
    sidecars = []
    for number, sent in enumerate(args.sidecars):
        path = work.scratch / f"sidecar-{number}"
        with work.store.open(sent.sha256) as source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        sidecars.append(Sidecar(sent.name, path))
    return sidecars


def _cover(work: IoWork, about_file: SourceMetadata) -> tuple[Thumbnail | None, str | None]:
    """(stored preview image, None), or (None, reason why it was skipped)."""
    if about_file.image is None:
        return None, None
    source = work.scratch / "image"
    source.write_bytes(about_file.image)
    try:
        with ImageDecoder(processes=1) as decoder:
            image = decoder.decode(source, work.scratch)
    except ImageRefused as error:
        return None, f"The preview image of the file was skipped. {error.detail}"
    small = work.store.put_file(image.small).sha256 if image.small else None
    cover = work.store.put_file(image.thumbnail).sha256
    return Thumbnail(sha256=cover, small_sha256=small), None


def _beside(work: IoWork, adapter_id: int, found: FileLayout, place: ImportTarget) -> ImportTarget:
    """The place of a file that shall be the next version of an adapter; refuses any other.

    The family is not enough: the starter has other shapes than any other SD 1.x model.
    """
    with work.database.read() as session:
        adapter = session.get_one(Adapter, adapter_id)
        newest = adapters.get_version(session, adapter)
    if adapter.base_family != place.family:
        raise RefusedError(
            "adapter",
            f"This file is for {family_label(place.family)}, and “{adapter.name}” is for "
            f"{adapter.family_label}. {AS_NEW_ADAPTER}",
        )
    own = _place_of(work, newest, adapter.base_family)
    if own is None:
        return place
    name = f"“{own.base.name}”" if own.base else family_label(own.family)
    misfit, sentence = _misfit(found, own.shapes, name)
    if misfit:
        raise RefusedError("adapter", f"{sentence} {AS_NEW_ADAPTER}")
    return own if own.base else place


def _place_of(work: IoWork, version: AdapterVersion, family: str) -> ImportTarget | None:
    """The target of a version; None if its base model is no longer available."""
    if version.base_model_id is None:
        return ImportTarget(family, family_shapes(BaseFamily(family)), None)
    bases = _bases(work, version.base_model_id)
    return ImportTarget(family, bases[0][1], bases[0][0]) if bases else None


def _publish(
    work: IoWork,
    args: ImportAdapterArgs,
    new: NewVersion,
    about_file: SourceMetadata,
    cover: Thumbnail | None,
) -> None:
    for attempt in range(PUBLISH_TRIES):
        try:
            with work.database.write() as session:
                require_not_canceled(session, work.lease)
                findings.forget_problems(session, new.sha256, args.sha256)
                with work.seeing_as_owner(session):
                    version = find_equal(
                        session,
                        canonical=new.sha256,
                        uploaded=new.sha256,
                        tensors=new.tensor_sha256,
                    )
                duplicate = version is not None
                if version is None:
                    version = publish(session, new, adapter_id=args.adapter_id)
                    _describe(session, version.adapter_id, about_file)
                    thumbnails.save(session, [cover] if cover else [])
                result = ImportAdapterResult(
                    adapter_id=version.adapter_id,
                    version=version.version,
                    duplicate=duplicate,
                    notes=() if duplicate else tuple(new.details["import_notes"]),
                    loss=new.details["loss"],
                )
                succeed(session, work.lease, result)
            return
        except sa.exc.IntegrityError:  # the name was just taken
            if attempt == PUBLISH_TRIES - 1:
                raise


def _find_known(session: Session, hash_of_file: str | None, uploaded: str) -> AdapterVersion | None:
    """The version that has these tensors or is this file."""
    return find_equal(session, canonical=uploaded, uploaded=uploaded, tensors_of_file=hash_of_file)


def _lacks_alpha_tensors(found: FileLayout) -> bool:
    """True if alpha is not among the tensors: equal tensors may then have unequal strengths.

    PEFT stores alpha in the header or in another file; only the canonical form is reliable.
    """
    return any(Leaf.DOWN in m.names and Leaf.ALPHA not in m.names for m in found.modules)


def _needs_config(found: FileLayout) -> bool:
    """True if the strength depends on a file beside this one, so that equal files may differ."""
    is_dotted = found.namings & {Naming.PEFT, Naming.SCRIPT, Naming.OLD}
    return bool(is_dotted) and _lacks_alpha_tensors(found) and not found.settings.header


def _describe(session: Session, adapter_id: int, about_file: SourceMetadata) -> None:
    """Add notes and tags from the file, unless the adapter already has some."""
    adapter = session.get_one(Adapter, adapter_id)
    tags = adapters.summary(session, adapter).tags
    change = AdapterChange(
        notes=about_file.description if about_file.description and not adapter.notes else None,
        tags=list(about_file.tags) if about_file.tags and not tags else None,
    )
    adapters.change_adapter(session, adapter_id, change)


def _misfit(
    found: FileLayout, shapes: Mapping[str, tuple[int, ...]], base_name: str
) -> tuple[int, str]:
    """(number of modules that do not fit a base model, a sentence about it)."""
    placed = found.with_shapes(shapes)
    return len(mismatched_modules(placed, shapes)), explain_mismatch(
        placed, shapes, base_name=base_name
    ) or ""


def _middle(reading: AdapterReading) -> tuple[int, float]:
    """(rank, alpha) of the module with the median rank."""
    modules = sorted(reading.adapter.modules, key=lambda module: module.rank)
    middle = modules[len(modules) // 2]
    return middle.rank, middle.alpha


def _stated_family(metadata: Mapping[str, str], families: list[Any]) -> Any:
    """The fitting family that the header names, else the first; text encoder files fit two."""
    about_file = family_of_header(metadata)
    return about_file if about_file in families else families[0]
