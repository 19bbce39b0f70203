"""Parse the forms of the tools into orders; errors name the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.registry.adapters import service, tools
from app.registry.adapters.models import Adapter
from app.registry.adapters.tools import FusedDtype, Keep, Layout, Method
from app.registry.adapters.weighted import WeightedAdapter
from app.registry.db import Session
from app.registry.errors import InvalidInput, NotFound
from app.registry.jobs.models import IoJob
from worker.core.lora_files.weights import weight_problem

Typed = Mapping[str, str]

WHOLE = re.compile(r"-?\d{1,8}", re.ASCII)
ROWS = (1, 2, 3)
METHODS = [
    ("linear", "Exact sum (the ranks add up)"),
    ("svd", "SVD: sum at a rank you choose"),
    ("ties", "TIES: only where the signs agree"),
    ("dare", "DARE: a random share of each"),
]
LAYOUTS = [
    ("base_model diffusers", "New base model here, as a diffusers folder"),
    ("base_model single", "New base model here, as a single file"),
    ("download single", "Single .safetensors file to download"),
]
DTYPES = [("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"), ("keep", "same as the base model")]
DEFAULTS = {
    "weight": "1",
    "text-weight": "",
    **{f"other-{row}": "" for row in ROWS},
    **{f"weight-{row}": "1" for row in ROWS},
    **{f"text-weight-{row}": "" for row in ROWS},
    "merge-name": "",
    "method": "linear",
    "rank": "16",
    "density": "0.5",
    "seed": "0",
    "resize-rank": "",
    "energy": "",
    "dynamic": "",
    "fuse-name": "",
    "base": "",
    "output": "base_model diffusers",
    "dtype": "fp16",
    "extract-name": "",
    "from": "",
    "tuned": "",
    "extract-rank": "16",
}


def merge_order(session: Session, adapter: Adapter, typed: Typed) -> IoJob:
    """Order a merge of this adapter with those of the rows."""
    method = _choice(Method, typed, "method")
    order = tools.MergeOrder(
        name=typed.get("merge-name", ""),
        parts=_parts(session, adapter, typed),
        method=method,
        rank=None if method is Method.LINEAR else _whole(typed, "rank"),
        density=_number(typed, "density"),
        seed=_whole(typed, "seed") or 0,
    )
    return tools.order_merge(session, order)


def resize_order(session: Session, adapter: Adapter, typed: Typed) -> IoJob:
    """Order a version of this adapter with a lower rank."""
    energy = _number(typed, "energy") / 100 if typed.get("energy") else None
    order = tools.ResizeOrder(
        version=_whole(typed, "version"),
        rank=_whole(typed, "resize-rank"),
        energy=energy,
        dynamic=bool(typed.get("dynamic")),
    )
    return tools.order_resize(session, adapter.key, order)


def fuse_order(session: Session, adapter: Adapter, typed: Typed) -> IoJob:
    """Order a base model with this adapter, and those of the rows, fused into it."""
    keep, _, layout = typed.get("output", "").partition(" ")
    order = tools.FuseOrder(
        name=typed.get("fuse-name", ""),
        parts=_parts(session, adapter, typed),
        base=typed.get("base") or None,
        layout=_choice(Layout, {"output": layout}, "output"),
        dtype=_choice(FusedDtype, typed, "dtype"),
        keep=_choice(Keep, {"output": keep}, "output"),
    )
    return tools.order_fuse(session, order)


def extract_order(session: Session, _adapter: Adapter, typed: Typed) -> IoJob:
    """Order an adapter from the difference of two base models."""
    order = tools.ExtractOrder(
        name=typed.get("extract-name", ""),
        base=typed.get("from", ""),
        tuned=typed.get("tuned", ""),
        rank=_whole(typed, "extract-rank") or 0,
    )
    return tools.order_extract(session, order)


def _parts(session: Session, adapter: Adapter, typed: Typed) -> list[WeightedAdapter]:
    """This adapter, then those named in the rows; empty rows are skipped."""
    rows = [_part_of_row(session, typed, row) for row in ROWS if typed.get(f"other-{row}")]
    version = service.get_version(session, adapter, _whole(typed, "version")).version
    own = _part(adapter, typed, "", version=version)
    return [own, *rows]


def _part_of_row(session: Session, typed: Typed, row: int) -> WeightedAdapter:
    field = f"other-{row}"
    slug, _, name = typed[field].partition("@")
    try:
        adapter = service.adapter_by_slug(session, slug.strip())
    except NotFound:
        raise _wrong(field, f"There is no adapter “{slug[:80]}”.") from None
    try:
        version = service.get_version(session, adapter, name or None).version
    except NotFound as error:
        raise _wrong(field, error.detail) from error
    return _part(adapter, typed, f"-{row}", version=version)


def _part(adapter: Adapter, typed: Typed, ending: str, *, version: int) -> WeightedAdapter:
    """The adapter with the weights of the fields with this suffix."""
    text_weight = f"text-weight{ending}"
    return WeightedAdapter(
        adapter_id=adapter.key,
        version=version,
        weight=_weight(typed, f"weight{ending}", adapter),
        text_encoder_weight=(
            _weight(typed, text_weight, adapter) if typed.get(text_weight) else None
        ),
    )


def _weight(typed: Typed, name: str, adapter: Adapter) -> float:
    """The weight in a field. Raises InvalidInput for one that is not accepted."""
    weight = _number(typed, name)
    if problem := weight_problem(weight, adapter.name):
        raise _wrong(name, problem)
    return weight


def _number(typed: Typed, name: str) -> float:
    text = typed.get(name, DEFAULTS.get(name, ""))
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise _wrong(name, f"“{text[:40]}” is not a number.") from None


def _whole(typed: Typed, name: str) -> int | None:
    """The whole number that was typed; None when the field was left empty."""
    text = typed.get(name, "")
    if not text:
        return None
    if not WHOLE.fullmatch(text):
        raise _wrong(name, f"“{text[:40]}” is not a whole number.")
    return int(text)


def _choice(kind: Any, typed: Typed, name: str) -> Any:
    try:
        return kind(typed.get(name, ""))
    except ValueError:
        raise _wrong(name, "This is not one of the choices. Choose one from the list.") from None


def _wrong(field: str, sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={field: sentence})
