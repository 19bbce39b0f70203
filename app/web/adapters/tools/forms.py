"""Parse the forms of the tools into orders; errors name the field."""

from __future__ import annotations

from app.registry.adapters import service, tools
from app.registry.adapters.resolve import find_version
from app.registry.db import Session
from app.registry.job_kinds.kinds import FuseOutput, ResizeAdapterArgs, ScaleAdapterArgs
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from app.web.form_reader import FormReader
from worker.core.inference.config import BlockWeights
from worker.core.lora_files.weights import weight_problem
from worker.core.words import FusedDtype, FuseLayout, MergeMethod

USUAL_DENSITY = 0.5
ROWS = (1, 2, 3, 4, 5)
METHODS = [(method.value, method.label) for method in MergeMethod]
LAYOUTS = [
    ("base_model diffusers", f"New base model here, as a {FuseLayout.DIFFUSERS.label}"),
    ("base_model single", f"New base model here, as a {FuseLayout.SINGLE.label}"),
    ("download single", "Single .safetensors file to download"),
]
DTYPES = [(dtype.value, dtype.label) for dtype in FusedDtype]
DEFAULTS = {  # of fields that are not empty
    "method": "linear",
    "rank": "16",
    "density": f"{USUAL_DENSITY:g}",
    "seed": "0",
    **{f"block-{name}": "1" for name in BlockWeights.model_fields},
    "output": "base_model diffusers",
    "extract-rank": "16",
}


def merge_order(session: Session, adapter: Adapter, form: FormReader) -> IoJob:
    """Order a merge of this adapter with those of the rows."""
    method = form.choice("method", MergeMethod)
    parts = _read_adapters(session, adapter, form)
    rank = None if method is MergeMethod.LINEAR else form.whole("rank", None)
    density, seed = form.number("density", USUAL_DENSITY), form.whole("seed", 0)
    form.check()
    name = form.text("merge-name")
    return tools.order_merge(
        session, name, parts, method=method, rank=rank, density=density, seed=seed
    )


def resize_order(session: Session, adapter: Adapter, form: FormReader) -> IoJob:
    """Order a version of this adapter with a lower rank."""
    energy = form.number("energy", None)
    order = ResizeAdapterArgs(
        rank=form.whole("resize-rank", None),
        energy=None if energy is None else energy / 100,
        dynamic=form.flag("dynamic"),
        use=form.flag("use"),
    )
    version = form.whole("version", None)
    form.check()
    return tools.order_resize(session, adapter.key, order, version)


def scale_order(session: Session, adapter: Adapter, form: FormReader) -> IoJob:
    """Order a version of this adapter with block weights."""
    factors = {
        name: _read_weight(adapter, form, f"block-{name}") for name in BlockWeights.model_fields
    }
    version, use = form.whole("version", None), form.flag("use")
    form.check()
    given = {name: factor for name, factor in factors.items() if factor is not None}
    order = ScaleAdapterArgs(blocks=BlockWeights.model_validate(given), use=use)
    return tools.order_scale(session, adapter.key, order, version)


def fuse_order(session: Session, adapter: Adapter, form: FormReader) -> IoJob:
    """Order a base model with this adapter, and those of the rows, fused into it."""
    output, _, form_of_base = form.text("output").partition(" ")
    parts = _read_adapters(session, adapter, form)
    layout = form.choice("output", FuseLayout, form_of_base)
    dtype = form.choice("dtype", FusedDtype)
    keep = form.choice("output", FuseOutput, output)
    form.check()
    name, base = form.text("fuse-name"), form.text("base") or None
    return tools.order_fuse(session, name, parts, base=base, layout=layout, dtype=dtype, keep=keep)


def extract_order(session: Session, _adapter: Adapter, form: FormReader) -> IoJob:
    """Order an adapter from the difference of two base models."""
    rank = form.whole("extract-rank", 0)
    form.check()
    base, tuned = form.text("from"), form.text("tuned")
    name = form.text("extract-name")
    return tools.order_extract(session, name=name, base=base, tuned=tuned, rank=rank)


def _read_adapters(session: Session, adapter: Adapter, form: FormReader) -> list[WeightedAdapter]:
    """This adapter, then those named in the rows; empty rows are skipped."""
    version = service.get_version(session, adapter, form.whole("version", None)).version
    parts = [_read_adapter(adapter, form, "", version=version)]
    for row in ROWS:
        if form.text(f"other-{row}"):
            with form.collect(f"other-{row}"):
                parts.append(_read_row(session, form, row))
    return parts


def _read_row(session: Session, form: FormReader, row: int) -> WeightedAdapter:
    adapter, version = find_version(session, form.text(f"other-{row}"))
    return _read_adapter(adapter, form, f"-{row}", version=version.version)


def _read_adapter(
    adapter: Adapter, form: FormReader, ending: str, *, version: int
) -> WeightedAdapter:
    """The adapter with the weights of the fields with this suffix."""
    return WeightedAdapter(
        adapter_id=adapter.key,
        version=version,
        weight=_read_weight(adapter, form, f"weight{ending}"),
        text_encoder_weight=_read_weight(adapter, form, f"text-weight{ending}"),
    )


def _read_weight(adapter: Adapter, form: FormReader, name: str) -> float | None:
    """The weight in a field; None for an empty one, and, with an error, for a wrong one."""
    weight = form.number(name, None)
    if weight is not None and (problem := weight_problem(weight, adapter.name)):
        form.refuse(name, problem)
        return None
    return weight
