"""The adapter stack of the playground: looked up, and checked against the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor
from typing import Any

from app.registry.adapters import fitting
from app.registry.adapters import service as adapters
from app.registry.adapters.fitting import AdapterAndVersion, BaseKind
from app.registry.adapters.resolve import trained_skip
from app.registry.adapters.service import AdapterSummary
from app.registry.adapters.usual_weight import weight_card_of
from app.registry.adapters.versions.aliases import VersionNames, names_of
from app.registry.base_models import service as base_models
from app.registry.db import Session
from app.registry.errors import AppError
from app.registry.renders.plan import usual_base_of, usual_of
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel
from app.registry.wording import join_words, plural
from app.web.form_reader import parse_number
from app.web.playground.adapter_picker import AdapterChoices, find_adapter_choices
from app.web.playground.adapter_rows import BLOCKS, AdapterRow
from app.web.playground.forms import PlayForm
from worker.core.lora_files.weights import USUAL_WEIGHT, WeightCard

LEAST, MOST = -1, 2  # ends of the slider of a weight, where adapters need no other than elsewhere
WHOLE = (0, 1)
NEAR = 0.45  # a word so close to a whole number would touch the number below it
BESIDE_PX = 8  # from the middle of a number to a word beside it


@dataclass(frozen=True)
class WeightTick:
    """A tick: `at` is its place in percent; the word stands `shift` pixels beside it.

    `anchor`: which end of the word is there, as SVG names it. Without a word it is a mark of the
    weight card.
    """

    weight: float
    word: str
    at: float
    anchor: str = "middle"
    shift: int = 0


def weight_ticks(
    usual: float | None = None, card: WeightCard | None = None, *, factor: float = 1
) -> list[WeightTick]:
    """The ticks at 0 and 1, at the usual weight if the slider reaches it, and those of the card.

    Its word stands below it, or between it and the whole number next to it, so that it touches
    no number. With another `factor` of the base model, the whole slider is so many times as long.
    """
    ticks = [
        WeightTick(number * factor, f"{number * factor:g}", _percent(number)) for number in WHOLE
    ]
    marks = (card.start, card.best, card.breaks) if card else ()
    reached = (one for one in marks if one and one <= MOST * factor)
    ticks += [WeightTick(one, "", _percent(one / factor)) for one in reached]
    if usual is None or not LEAST <= usual / factor <= MOST:
        return ticks
    place = usual / factor
    below = min(floor(place), MOST - 1)
    if place - below < NEAR:
        return [*ticks, WeightTick(usual, "usual", _percent(below), "start", BESIDE_PX)]
    if place - below > 1 - NEAR:
        return [*ticks, WeightTick(usual, "usual", _percent(below + 1), "end", -BESIDE_PX)]
    return [*ticks, WeightTick(usual, "usual", _percent(place))]


def _percent(weight: float) -> float:
    return round(100 * (weight - LEAST) / (MOST - LEAST), 2)


@dataclass(frozen=True)
class StackView:
    """A row of the stack with its adapter; None when it does not exist.

    Its weight is filled in. `usual_weight`: that of the version. `misfit` says why it does not fit
    the base model; empty if it fits. `has_text_encoder`: False if it is known to have no layers in
    the text encoders. `versions`: references to choose from, with their labels; empty: only one.
    `card`: where its style shows with the base model, if that was measured. `factor`: how many
    times the weights are with it that adapters usually need.
    """

    row: AdapterRow
    adapter: Adapter | None = None
    cover: str | None = None
    version: int | None = None
    error: str = ""
    misfit: str = ""
    usual_weight: float = USUAL_WEIGHT
    text_error: str = ""
    has_text_encoder: bool = True
    block_errors: Mapping[str, str] = field(default_factory=dict)
    versions: Sequence[tuple[str, str]] = ()
    card: WeightCard | None = None
    factor: float = 1

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the slider of its weight."""
        return LEAST * self.factor, MOST * self.factor

    @property
    def plain_ends(self) -> tuple[float, float]:
        """The ends of the sliders of block weights."""
        return LEAST, MOST

    @property
    def label(self) -> str:
        """The name of the adapter, or what was given in its place."""
        return self.adapter.name if self.adapter else self.row.slug

    @property
    def ticks(self) -> list[WeightTick]:
        """The ticks of its weight."""
        return weight_ticks(self.usual_weight, self.card, factor=self.factor)

    @property
    def plain_ticks(self) -> list[WeightTick]:
        """The ticks of the weights that have no usual one: text encoders and blocks."""
        return weight_ticks()


@dataclass(frozen=True)
class CheckedStack:
    """The rows, all base models, the one in use, and the kind that new adapters must fit.

    `usual_base` and `usual_clip_skip` are used where the form names none.
    """

    rows: list[StackView]
    bases: list[BaseModel]
    base: BaseModel
    base_kind: BaseKind | None
    usual_base: BaseModel
    usual_clip_skip: int

    @property
    def misfits(self) -> str:
        """The misfit sentences of all enabled rows."""
        return " ".join(row.misfit for row in self.rows if row.misfit and row.row.is_on)

    @property
    def hint(self) -> str:
        """A sentence on the base model: how many do not fit, else the weight they usually need."""
        count = sum(bool(row.misfit) for row in self.rows)
        if not count:
            return usual_of(self.base).weights
        return f"{plural(count, 'adapter')} above {'does' if count == 1 else 'do'} not fit."


def look_up(
    session: Session, form: PlayForm, errors: Mapping[str, str] | None = None
) -> CheckedStack:
    """Look up the stack of a form; `errors` are the errors of its fields."""
    found = [find_version(session, row) for row in form.stack]
    bases = base_models.list_base_models(session)
    base = next((base for base in bases if form.base and form.base == base.slug), None)
    used = _enabled_adapters(form.stack, found)
    base_kind = fitting.kind_of_base(base) if base else None
    usual_base = usual_base_of(session, used) or base_models.find_base_model(session, None)
    usual_clip_skip = max((trained_skip(version.config) for _, version in used), default=1)
    if base is None:
        base = usual_base
        base_kind = fitting.kind_of_base(base) if used else None
    made = [pair for pair in found if not isinstance(pair, str)]
    listed = adapters.summarize(session, [adapter for adapter, _ in made]) if made else []
    summaries = {each.adapter.key: each for each in listed}
    names = names_of(session, (key for key, one in summaries.items() if one.version_count > 1))
    kinds = iter(fitting.kinds(session, made, known=bases))
    rows, own, factor = [], errors or {}, usual_of(base).weight
    for index, (row, pair) in enumerate(zip(form.stack, found, strict=True)):
        usual = USUAL_WEIGHT if isinstance(pair, str) else pair[1].usual_weight * factor
        view = StackView(
            row if row.weight is not None else replace(row, weight=f"{usual:g}"),
            error=own.get(f"weight-{index}", ""),
            usual_weight=usual,
            factor=factor,
            text_error=own.get(f"text-weight-{index}", ""),
            block_errors={name: own.get(f"block-{index}-{name}", "") for name in BLOCKS},
        )
        if isinstance(pair, str):
            rows.append(replace(view, error=view.error or pair))
            continue
        adapter, version = pair
        rows.append(
            replace(
                view,
                adapter=adapter,
                cover=next(iter(summaries[adapter.key].covers), None),
                version=version.version,
                misfit=fitting.misfit(adapter, next(kinds), base, bases),
                has_text_encoder="train_text_encoder" not in base.options.training
                and version.config.get("train_text_encoder") is not False,
                versions=_versions(row, summaries[adapter.key], names.get(adapter.key)),
                card=weight_card_of(version, base),
            )
        )
    return CheckedStack(rows, bases, base, base_kind, usual_base, usual_clip_skip)


def _versions(
    row: AdapterRow, summary: AdapterSummary, names: VersionNames | None
) -> list[tuple[str, str]]:
    """References to the versions of an adapter with their labels; none if it has one."""
    if names is None:
        return []
    label = summary.adapter.version_label
    numbers = list(names.numbers)
    if isinstance(row.version, int) and row.version not in numbers:
        numbers.append(row.version)  # of many, an old one
    named = [(alias, f"{alias}, {label(number)}") for alias, number in names.aliases.items()]
    named += [(str(number), label(number)) for number in numbers]
    in_use = f"{label(summary.version.version)}, in use"
    return [(row.slug, in_use), *((f"{row.slug}@{name}", words) for name, words in named)]


def choices_beside(
    session: Session, form: PlayForm, stack: CheckedStack, *, with_used: bool = False
) -> AdapterChoices:
    """The adapters that can be added to this stack; `with_used`: with those that are in it."""
    used = [row.slug for row in form.stack]
    return find_adapter_choices(
        session, form.find, used=used, base_kind=stack.base_kind, with_used=with_used
    )


def follow_base(session: Session, form: PlayForm, shown: str) -> tuple[PlayForm, str]:
    """The form with the usual numbers of its base model in place of those of the one shown before.

    `shown`: the slug of that. Numbers that a person typed stay, which the sentence says.
    """
    stack = look_up(session, form)
    old = next((base for base in stack.bases if base.slug == shown), stack.base)
    before, now = usual_of(old), usual_of(stack.base)
    if before == now:
        return form, ""
    rows = [
        replace(row, weight=None)
        if row.number == item.usual_weight / now.weight * before.weight
        else row
        for row, item in zip(form.stack, stack.rows, strict=True)
    ]
    kept = [
        f"weight {row.weight} of {item.label}"
        for row, item in zip(rows, stack.rows, strict=True)
        if row.weight is not None and before.weight != now.weight
    ]
    texts: dict[str, Any] = {"steps": form.steps, "guidance": form.guidance}
    changed = {"steps": (before.steps, now.steps), "guidance": (before.guidance, now.guidance)}
    for name, (old_usual, usual) in changed.items():
        if parse_number(texts[name]) == old_usual:
            texts[name] = ""
        elif texts[name] and old_usual != usual:
            kept.append(f"{name} {texts[name]}")
    stay = f"As typed: {join_words(kept)}." if kept else ""
    return replace(form, stack=tuple(rows), **texts), stay


def change_words(
    session: Session, before: PlayForm, now: Sequence[StackView], change: Mapping[str, str]
) -> str:
    """A sentence on what was added to the stack, removed from it or replaced; empty if nothing was.

    `chosen` of the change: the row whose version was chosen.
    """
    known = [row.slug for row in before.stack]
    for item, old in zip(now, before.stack, strict=False):
        if item.row.reference != old.reference and len(known) == len(now):
            return _in_stack(item)
    for item in now:
        if item.row.slug not in known:
            return f"{item.label} is added with weight {item.row.weight}."
    if len(known) > len(now):
        here = [item.row.slug for item in now]
        for item in look_up(session, before).rows:
            if item.row.slug not in here:
                return f"{item.label} is removed."
    rows = {str(number): item for number, item in enumerate(now)}
    chosen = rows.get(change.get("chosen", ""))
    return _in_stack(chosen) if chosen else ""


def _in_stack(item: StackView) -> str:
    """A sentence on the version of a row; empty if its adapter is not here."""
    if item.adapter is None:
        return ""
    return f"{item.label}, {item.adapter.version_label(item.version or 0)}, is in the stack."


def find_version(session: Session, row: AdapterRow) -> AdapterAndVersion | str:
    """The adapter and version of a row, or an error message."""
    try:
        adapter = adapters.adapter_by_slug(session, row.slug)
        return adapter, adapters.get_version(session, adapter, row.version)
    except AppError as missing:
        return missing.detail


def _enabled_adapters(
    rows: Sequence[AdapterRow], found: Sequence[AdapterAndVersion | str]
) -> list[AdapterAndVersion]:
    """The enabled adapters, else all: they determine the default base model."""
    on = [
        pair
        for row, pair in zip(rows, found, strict=True)
        if row.is_on and not isinstance(pair, str)
    ]
    return on or [pair for pair in found if not isinstance(pair, str)]
