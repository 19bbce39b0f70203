"""Tool jobs: merge, resize, scale, fuse into a base model, extract, measure an overlap.

Importing this module loads torch; a merge, a resize or a scaling does without diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.registry.adapters.tools import MAX_LICENSE, MAX_TRIGGERS
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.added_models import service as added_models
from app.registry.added_models.service import delete_model_files
from app.registry.base_models import service as base_models
from app.registry.base_models.fused_files import (
    delete_unfinished,
    fused_ending,
    fused_path,
    fused_stem,
)
from app.registry.errors import AppError
from app.registry.job_kinds.kinds import (
    ExtractAdapterArgs,
    FuseAdapterArgs,
    FuseAdapterResult,
    FuseOutput,
    JobKind,
    MeasureOverlapArgs,
    MeasureOverlapResult,
    MergeAdaptersArgs,
    NewVersionResult,
    ResizeAdapterArgs,
    ScaleAdapterArgs,
)
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.runs import service
from app.registry.runs.checkpoints import adapter_for_next_version
from app.registry.storage.store import translate_full_disk
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from worker.core.bases.family import BaseModelError
from worker.core.families.family import FALLBACK_FAMILY
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.combine import MergeOptions, ToolResult, merge_adapters
from worker.core.lora_files.tools.lowrank import FidelityReport
from worker.core.lora_files.tools.overlap import measure_overlap
from worker.core.lora_files.tools.resize import ResizeOptions, resize_adapter
from worker.core.lora_files.tools.scale import scale_blocks
from worker.core.lora_files.tools.stack import ToolError
from worker.core.safetensors_header import tensor_hash
from worker.core.words import FusedDtype, FuseLayout, MergeMethod
from worker.runtime.job_progress import (
    IoWork,
    JobProgress,
    RefusedError,
    require_not_canceled,
    succeed,
)

KEPT_DETAILS = ("author", "datasets")  # of a version that a tool changes
MERGE_FACTS = {"method", "density", "seed", "parts"}  # of a merged version
DELETED = "“{name}” was deleted while this waited. Restore it, then try again."
ONE_DELETED = "One of the two adapters was deleted. Restore it, then compare them again."
NOT_SMALLER = (
    "The result would not be smaller than version {version} of “{name}”. Choose a lower rank, or a "
    "smaller share of energy."
)


def run(work: IoWork) -> None:
    """Carry out the tool of a job; a version, file or base model appears whole or not at all.

    Raises RefusedError.
    """
    try:
        with work.cancelable(result={}) as progress, translate_full_disk():
            TOOLS[work.job.kind](work, progress)
    except AdapterError as error:
        raise RefusedError("adapter", str(error)) from error
    except BaseModelError as error:
        raise RefusedError("base_model", str(error)) from error


def _merge(work: IoWork, progress: JobProgress) -> None:
    args = work.job.arguments(MergeAdaptersArgs)
    options = MergeOptions(MergeMethod(args.method), args.rank, args.density, args.seed)
    made = merge_adapters(_stack(work, args.parts), options, on_module=progress)
    if args.run_id is not None:
        told = {"tool": "average", **args.model_dump(mode="json", include={"rank", "parts"})}
        source = _averaged(work, args.run_id, args.parts[-1].version_id)
        _publish_next(work, made, source, told, use=args.use)
        return
    told = {"tool": "merge", **args.model_dump(mode="json", include=MERGE_FACTS)}
    with work.database.read() as session:
        versions = [session.get_one(AdapterVersion, p.version_id) for p in args.parts]
        sources = [session.get_one(Adapter, version.adapter_id) for version in versions]
    words = dict.fromkeys(word for source in sources for word in source.trigger_words)
    _publish(
        work,
        made.adapter,
        made.report,
        name=args.name,
        base_family=sources[0].base_family,
        base_model_id=next((v.base_model_id for v in versions if v.base_model_id), None),
        trigger_words=list(words)[:MAX_TRIGGERS],
        license=_license(sources),
        details={"made": told},
    )


def _averaged(work: IoWork, run_id: int, version_id: int) -> tuple[Adapter, AdapterVersion]:
    """The adapter that gets the average as a version, with the newest checkpoint in it."""
    with work.database.read() as session:
        version = session.get_one(AdapterVersion, version_id)
        extended = adapter_for_next_version(session, service.get_run(session, run_id))
        return session.get_one(Adapter, extended or version.adapter_id), version


def _resize(work: IoWork, progress: JobProgress) -> None:
    args = work.job.arguments(ResizeAdapterArgs)
    options = ResizeOptions(args.rank, args.energy, args.dynamic)
    adapter, version = _subject(work)
    before = _weights(work, version.key, _deleted(adapter.name))
    made = resize_adapter(before, options, on_module=progress)
    if made.adapter.parameters >= before.parameters:
        raise ToolError(NOT_SMALLER.format(name=adapter.name, version=version.version))
    told = {"tool": "resize", "version": version.version, "rank_before": version.rank}
    told |= args.model_copy(update={"use": False}).stored()
    _publish_next(work, made, (adapter, version), told, use=args.use)


def _scale(work: IoWork, progress: JobProgress) -> None:
    args = work.job.arguments(ScaleAdapterArgs)
    adapter, version = _subject(work)
    before = _weights(work, version.key, _deleted(adapter.name))
    made = scale_blocks(before, args.blocks.by_part, on_module=progress)
    told = {"tool": "scale", "version": version.version, "blocks": args.blocks.model_dump()}
    _publish_next(work, made, (adapter, version), told, use=args.use)


def _subject(work: IoWork) -> tuple[Adapter, AdapterVersion]:
    """The version that a job changes, with its adapter."""
    with work.database.read() as session:
        version = session.get_one(AdapterVersion, work.subject_id)
        return session.get_one(Adapter, version.adapter_id), version


def _publish_next(
    work: IoWork,
    made: ToolResult,
    source: tuple[Adapter, AdapterVersion],
    told: dict[str, Any],
    *,
    use: bool,
) -> None:
    """Publish what a tool made of a version as the next one of its adapter."""
    adapter, version = source
    _publish(
        work,
        made.adapter,
        made.report,
        adapter_id=adapter.key,
        name=adapter.name,
        base_family=adapter.base_family,
        base_model_id=version.base_model_id,
        dataset_version_id=version.dataset_version_id,
        steps=version.steps,
        usual_weight=version.usual_weight,
        becomes_latest=use,
        trigger_words=list(version.trigger_words),
        config=dict(version.config),
        details={"made": told}
        | {key: value for key, value in version.details.items() if key in KEPT_DETAILS},
    )


def _extract(work: IoWork, progress: JobProgress) -> None:
    from worker.core.lora_files.tools.extract import extract_adapter  # loads diffusers

    args = work.job.arguments(ExtractAdapterArgs)
    base, tuned = _base(work, work.subject_id), _base(work, args.tuned_id)
    found = extract_adapter(
        base.location,
        tuned.location,
        args.rank,
        on_layer=progress,
    )
    told = {
        "tool": "extract",
        "base": base.name,
        "tuned": tuned.name,
        "tuned_fingerprint": tuned.fingerprint,
        "unchanged": found.unchanged,
        "beyond": found.beyond,
    }
    _publish(
        work,
        found.adapter,
        found.report,
        name=args.name,
        base_family=base.family or FALLBACK_FAMILY,
        base_model_id=base.key,
        details={"made": told},
    )


def _fuse(work: IoWork, progress: JobProgress) -> None:
    from worker.core.lora_files.tools.fuse import FuseOptions, fuse_adapters  # loads diffusers

    args, base = work.job.arguments(FuseAdapterArgs), _base(work, work.subject_id)
    options = FuseOptions(FuseLayout(args.layout), FusedDtype(args.dtype))
    out = fused_path(work.settings.data_dir, work.job, work.lease.claim)
    delete_unfinished(work.database, work.lease.claim, work.settings.data_dir, work.job)
    stack = _stack(work, args.parts)
    try:
        made = fuse_adapters(
            base.location,
            stack,
            out,
            options,
            base_name=f"“{base.name}”",
            on_tensor=progress,
        )
        figures = FuseAdapterResult(layers=made.layers, size_bytes=made.size_bytes)
        if args.keep is FuseOutput.BASE_MODEL:
            _register(work, args.name, out, figures)
            return
        blob = work.store.put_file(out)
        filename = f"{fused_stem(args)}{fused_ending(args)}"
        kept = {"sha256": blob.sha256, "filename": filename}
        with work.database.write() as session:
            require_not_canceled(session, work.lease)
            succeed(session, work.lease, figures.model_copy(update=kept))
        delete_model_files(out)
    except BaseException:
        delete_model_files(out)
        raise


def _measure_overlap(work: IoWork, progress: JobProgress) -> None:
    other, deleted = (
        work.job.arguments(MeasureOverlapArgs).other_id,
        RefusedError("gone", ONE_DELETED),
    )
    one, two = (LoadedAdapter("", _weights(work, key, deleted)) for key in (work.subject_id, other))
    found = measure_overlap(one, two, on_layer=progress)
    layers = tuple((layer.key, layer.cosine, layer.inputs, layer.outputs) for layer in found.layers)
    work.succeed(MeasureOverlapResult(cosine=found.cosine, changed=found.changed, layers=layers))


def _register(work: IoWork, name: str, out: Path, figures: FuseAdapterResult) -> None:
    with work.database.write() as session:
        require_not_canceled(session, work.lease)
        base = added_models.add_path(session, base_models.BASE_MODELS, str(out))
        base.name = name
        session.add(base)
        session.flush()
        known = {"base_model_id": base.key, "slug": base.slug, "name": name}
        succeed(session, work.lease, figures.model_copy(update=known))


def _publish(
    work: IoWork,
    weights: LoraAdapter,
    report: FidelityReport,
    *,
    details: dict[str, Any],
    adapter_id: int | None = None,
    **values: Any,
) -> None:
    """Store the canonical file, then the version and the job's status in one transaction."""
    path = work.scratch / "canonical.safetensors"
    canonical.save_adapter(LoraAdapter(weights.modules), path)
    blob = work.store.put_file(path)
    summary = report.summary()
    details["made"] |= summary
    new = NewVersion(
        sha256=blob.sha256,
        size_bytes=blob.size,
        tensor_sha256=tensor_hash(path),
        rank=summary["rank_max"],
        alpha=float(summary["rank_max"]),
        trainable_parameters=weights.parameters,
        details=details | {"modules": summary["modules"]},
        **values,
    )
    with work.database.write() as session:
        require_not_canceled(session, work.lease)
        version = publish(session, new, adapter_id=adapter_id)
        adapter = session.get_one(Adapter, version.adapter_id)
        result = NewVersionResult(
            **summary,
            adapter_id=adapter.key,
            slug=adapter.slug,
            name=adapter.name,
            version=version.version,
        )
        succeed(session, work.lease, result)


def _stack(work: IoWork, parts: Sequence[ResolvedAdapter]) -> list[LoadedAdapter]:
    return [
        LoadedAdapter(
            part.name,
            _weights(work, part.version_id, _deleted(part.name)),
            part.weight,
            part.text_encoder_weight,
            part.factors_by_part,
        )
        for part in parts
    ]


def _deleted(name: str) -> ToolError:
    return ToolError(DELETED.format(name=name))


def _weights(work: IoWork, version_id: int, deleted: Exception) -> LoraAdapter:
    """The weights of a version. Raises `deleted` if it or its adapter is."""
    with work.database.read() as session:
        version = session.get(AdapterVersion, version_id)
        adapter = session.get(Adapter, version.adapter_id) if version else None
    if version is None or adapter is None or adapter.deleted_at is not None:
        raise deleted
    return canonical.load_adapter(work.store.local_path(version.sha256, work.scratch))


def _base(work: IoWork, base_id: int) -> BaseModel:
    with work.database.read() as session:
        try:
            base = base_models.get_base_model(session, base_id)
            base_models.require_ready(base)
        except AppError as error:
            raise BaseModelError(error.detail) from error
    return base


TOOLS: Mapping[str, Callable[[IoWork, JobProgress], None]] = {
    JobKind.MERGE_ADAPTERS: _merge,
    JobKind.RESIZE_ADAPTER: _resize,
    JobKind.SCALE_ADAPTER: _scale,
    JobKind.FUSE_ADAPTER: _fuse,
    JobKind.EXTRACT_ADAPTER: _extract,
    JobKind.MEASURE_OVERLAP: _measure_overlap,
}


def _license(sources: Sequence[Adapter]) -> str:
    """The distinct licenses of these adapters, which all apply to the result."""
    return " and ".join(dict.fromkeys(s.license for s in sources if s.license))[:MAX_LICENSE]
