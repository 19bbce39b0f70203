"""Axes of a grid: a setting and its values, read from a list, a range or a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlmodel import Session

from app.registry.adapters import fitting
from app.registry.adapters import service as adapters
from app.registry.adapters.resolve import find_version
from app.registry.adapters.service import Filter
from app.registry.db import MAX_ID
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.renders.grids.numbers import (
    MAX_VALUES,
    expand_alternatives,
    read_numbers,
    split_list,
)
from app.registry.renders.strips import spread
from app.registry.runs import checkpoints
from app.registry.runs import service as runs
from app.registry.tables.added_models import BaseModel as Base
from app.registry.tables.axes import Axis, AxisKind, AxisValue
from app.registry.validation import too_long
from app.registry.wording import plural
from worker.core.inference.config import MAX_PROMPT_CHARACTERS
from worker.core.lora_files.weights import weight_problem
from worker.core.words import SamplerName

MAX_AXIS_TEXT = 20_000
MAX_FILLED = 24  # adapters of a search, checkpoints of a run
SEARCH = "search:"
WITHOUT = "none"
PLACES = ("columns", "rows", "sheets")


@dataclass(frozen=True)
class AxisRequest:
    """An axis as a person writes it."""

    kind: AxisKind
    text: str
    row: int = 0


@dataclass(frozen=True)
class AxisContext:
    """The inputs of the values of an axis: prompt, names of the stack, base model.

    A name is empty where another axis varies the adapter.
    """

    session: Session
    prompt: str
    names: Sequence[str]
    base: Base


@dataclass(frozen=True)
class ReadAxis:
    """An axis with a note for the user, such as that duplicates were left out."""

    axis: Axis
    note: str = ""


def read_axis(wanted: AxisRequest, context: AxisContext) -> ReadAxis:
    """The values of an axis, each once. Raises InvalidInput, or NotFound for an adapter or run."""
    if len(wanted.text) > MAX_AXIS_TEXT:
        raise InvalidInput(too_long(wanted.text, MAX_AXIS_TEXT))
    _check_row(wanted, context)
    run_id = None
    if wanted.kind is AxisKind.CHECKPOINT:
        run_id, values = _checkpoints(wanted.text, context)
    else:
        values = READERS[wanted.kind](wanted, context)
    if not values:
        raise InvalidInput(f"Enter the values of this axis. {wanted.kind.example}")
    unique = list({repr(value.value): value for value in values}.values())
    if len(unique) > MAX_VALUES:
        raise InvalidInput(
            f"These are {len(unique):,} values; a grid has at most {MAX_VALUES} images."
        )
    dropped = len(values) - len(unique)
    note = f"{plural(dropped, 'value')} given twice, used once." if dropped else ""
    row = wanted.row if wanted.kind.is_of_row else len(context.names)
    axis = Axis(
        kind=wanted.kind,
        text=wanted.text,
        values=unique,
        row=wanted.row,
        run_id=run_id,
        name=next(iter(context.names[row:]), ""),
    )
    return ReadAxis(axis, note)


def _check_row(wanted: AxisRequest, context: AxisContext) -> None:
    if not wanted.kind.is_of_row:
        return
    known = len(context.names)
    most = known if wanted.kind is not AxisKind.WEIGHT else known - 1  # one more can be added
    if not 0 <= wanted.row <= max(most, 0):
        raise InvalidInput(f"There is no adapter {wanted.row + 1:,} to vary.")
    if wanted.kind is AxisKind.WEIGHT and not known:
        raise InvalidInput("Weights need an adapter. Add one in the playground, or as an axis.")


def _weights(wanted: AxisRequest, context: AxisContext) -> list[AxisValue]:
    numbers = [float(number) for number in read_numbers(wanted.text)]
    for number in numbers:
        if problem := weight_problem(number):
            raise InvalidInput(problem)
    name = context.names[wanted.row] or "Weight"
    return [
        AxisValue(label=f"{name} {weight_text(number)}".strip(), value=number) for number in numbers
    ]


def weight_text(weight: float) -> str:
    """A weight with at least two decimals."""
    text = f"{weight:.2f}"
    return text if float(text) == weight else f"{weight:g}"


def _whole(noun: str) -> Callable[[AxisRequest, AxisContext], list[AxisValue]]:
    def read(wanted: AxisRequest, _context: AxisContext) -> list[AxisValue]:
        numbers = read_numbers(wanted.text)
        for number in numbers:
            if number != int(number):
                raise InvalidInput(f"{number} is not a whole number.")
        values = map(int, numbers)
        return [AxisValue(label=f"{noun} {value}", value=value) for value in values]

    return read


def _steps(wanted: AxisRequest, context: AxisContext) -> list[AxisValue]:
    found = _whole("")(wanted, context)
    return [AxisValue(label=f"{each.label.strip()} steps", value=each.value) for each in found]


def _guidance(wanted: AxisRequest, _context: AxisContext) -> list[AxisValue]:
    numbers: list[Decimal] = read_numbers(wanted.text)
    return [AxisValue(label=f"Guidance {float(n):g}", value=float(n)) for n in numbers]


def _samplers(wanted: AxisRequest, _context: AxisContext) -> list[AxisValue]:
    found = []
    for name in split_list(wanted.text):
        try:
            sampler = SamplerName(name)
        except ValueError:
            known = ", ".join(each.label for each in SamplerName)
            raise InvalidInput(f"There is no sampler “{name[:40]}”. There are: {known}.") from None
        found.append(AxisValue(label=sampler.label, value=sampler.value))
    return found


def _prompts(wanted: AxisRequest, context: AxisContext) -> list[AxisValue]:
    lines = [line.strip() for line in wanted.text.splitlines() if line.strip()]
    found: list[str] = []
    for line in lines or [context.prompt]:
        if len(line) > MAX_PROMPT_CHARACTERS:
            raise InvalidInput(too_long(line, MAX_PROMPT_CHARACTERS))
        found += expand_alternatives(line)
        if len(found) > MAX_VALUES:
            raise InvalidInput(
                f"These are {len(found):,} prompts or more; a grid has at most {MAX_VALUES} images."
            )
    return [AxisValue(label=prompt, value=prompt) for prompt in found if prompt]


def _adapters(wanted: AxisRequest, context: AxisContext) -> list[AxisValue]:
    text = wanted.text.strip()
    if text.lower().startswith(SEARCH):
        return _search(text[len(SEARCH) :].strip(), context)
    found: list[AxisValue] = []
    for entry in split_list(text):
        if len(found) >= MAX_VALUES:
            raise InvalidInput(f"A grid has at most {MAX_VALUES} images.")
        found.append(_adapter(entry, context))
    return found


def _adapter(entry: str, context: AxisContext) -> AxisValue:
    if entry.lower() == WITHOUT:
        return AxisValue(label="No adapter", value=None)
    reference, colon, weight_words = entry.partition(":")
    weight = None
    if colon:
        try:
            (number,) = read_numbers(weight_words)
        except (InvalidInput, ValueError):
            example = f"{reference[:60]}:0.8"
            raise InvalidInput(f"“{entry[:60]}” has no valid weight. Write {example}.") from None
        weight = float(number)
        if problem := weight_problem(weight):
            raise InvalidInput(problem)
    try:
        adapter, version = find_version(context.session, reference)
    except AppError as error:
        raise InvalidInput(f"“{entry[:60]}”: {error.detail}") from None
    is_latest = "@" not in reference
    label = (
        adapter.name if is_latest else f"{adapter.name} {adapter.version_label(version.version)}"
    )
    if weight is not None:
        label += f" {weight_text(weight)}"
    value = {"adapter_id": adapter.key, "version": version.version, "weight": weight}
    return AxisValue(label=label, value=value)


def _search(words: str, context: AxisContext) -> list[AxisValue]:
    """The adapters that a search finds and that fit the base model, the newest first."""
    page = adapters.list_adapters(context.session, Filter(q=words[:200]))
    made = [(item.adapter, item.version) for item in page.items]
    kinds = fitting.kinds(context.session, made)
    kind = fitting.kind_of_base(context.base)
    found = [
        AxisValue(
            label=adapter.name,
            value={"adapter_id": adapter.key, "version": version.version, "weight": None},
        )
        for (adapter, version), own in zip(made, kinds, strict=True)
        if own.fits(kind)
    ]
    if not found:
        raise InvalidInput(f"No adapter for “{context.base.name}” matches “{words[:60]}”.")
    return found[:MAX_FILLED]


def _checkpoints(text: str, context: AxisContext) -> tuple[int, list[AxisValue]]:
    """The run and its checkpoints: `12` or `run 12` for all, else `12: 100, 200`."""
    head, _, words = text.partition(":")
    number = head.strip().lower().removeprefix("run").strip()
    if not (number.isascii() and number.isdigit() and len(number) <= len(str(MAX_ID))):
        raise InvalidInput(f"Begin with the number of a run. {AxisKind.CHECKPOINT.example}")
    run_id = min(int(number), MAX_ID)
    try:
        run = runs.get_run(context.session, run_id)
    except NotFound:
        raise InvalidInput(f"There is no run {number}.") from None
    wanted = {int(step) for step in read_numbers(words)} if words.strip() else None
    rows = [
        row
        for row in reversed(checkpoints.list_checkpoints(context.session, run.key))
        if row.version is not None and row.address is not None
    ]
    known = [row.step for row in rows]
    if not known:
        raise InvalidInput(f"Run {run.key} has no checkpoint that can be used as an adapter.")
    if wanted is None:
        rows = [rows[place] for place in spread(len(rows), MAX_FILLED)]
    elif missing := sorted(wanted - set(known)):
        there = ", ".join(f"{step:,}" for step in known[-20:])
        raise InvalidInput(
            f"Run {run.key} has no checkpoint at step {missing[0]:,}. It has: {there}."
        )
    found = [
        AxisValue(
            label=f"{run.name} step {row.step:,}",
            value={"adapter_id": row.address.key, "version": row.step, "weight": None},
        )
        for row in rows
        if row.address is not None and (wanted is None or row.step in wanted)
    ]
    return run.key, found


READERS: dict[AxisKind, Callable[[AxisRequest, AxisContext], list[AxisValue]]] = {
    AxisKind.WEIGHT: _weights,
    AxisKind.ADAPTER: _adapters,
    AxisKind.PROMPT: _prompts,
    AxisKind.SEED: _whole("Seed"),
    AxisKind.STEPS: _steps,
    AxisKind.GUIDANCE: _guidance,
    AxisKind.SAMPLER: _samplers,
}
