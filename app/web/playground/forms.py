"""The form of the playground: parsed from a URL or a form, kept as text, validated."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlencode

from app.registry.adapters import service as adapters
from app.registry.db import MAX_ID, Session
from app.registry.errors import InvalidInput, NotFound
from app.registry.renders.recipes.service import OpenedRecipe, request_of
from app.registry.renders.requests import RenderRequest
from app.registry.renders.sources import SourceImage
from app.registry.tables.added_models import BaseModel
from app.registry.tables.renders import Render
from app.web.form_reader import FormReader
from app.web.playground.adapter_rows import (
    BLOCKS,
    AdapterRow,
    hold_sum,
    read_reference,
    read_weighted,
    row_of,
)
from worker.core.words import SamplerName

ROW = re.compile(r"adapter-(\d{1,3})")
PLACE = re.compile(r"\d{1,3}", re.ASCII)  # of a row
PUT = re.compile(r"(\d{1,3})=(.+)")
MAX_PUT = 300  # characters of it
BLEND = "blend"  # the sum of the weights is held while one of them moves
MAX_NAMED = 40  # characters of a name that is not here
NUMBERS = ("seed", "steps", "guidance", "clip_skip", "width", "height", "count", "strength")
MAX_ROWS = 100  # of adapters that a form or an address may name; the service allows fewer


@dataclass(frozen=True)
class PlayForm:
    """All fields of the playground, as text; an empty one is as usual with the base model.

    So is the sampler that is the first of all. `find` is the search for adapters to add, `subject`
    the one for subjects of the base model. `live`: the image is generated again while a weight is
    moved. `mix`: `blend` if the sum of the weights is held then; what is rendered are the weights
    as they are.
    """

    prompt: str = ""
    negative: str = ""
    seed: str = ""
    keep_seed: bool = True
    live: bool = True
    sampler: str = SamplerName.DDIM.value
    steps: str = ""
    guidance: str = ""
    clip_skip: str = ""
    width: str = ""
    height: str = ""
    count: str = "1"
    base: str = ""
    source: str = ""
    strength: str = ""
    mix: str = ""
    find: str = ""
    subject: str = ""
    stack: Sequence[AdapterRow] = field(default_factory=tuple)

    @property
    def link(self) -> str:
        """The URL of the playground with these values."""
        pairs = [("adapter", row.weighted) for row in self.stack if row.is_on]
        texts = {name: getattr(self, name) for name in TEXTS}
        if not self.source:
            del texts["strength"]
        pairs += [(name, text) for name, text in texts.items() if text not in ("", TEXTS[name])]
        return f"/play?{urlencode(pairs)}" if pairs else "/play"

    def with_stack(self, change: Mapping[str, str]) -> PlayForm:
        """The form with an adapter added (`add`), removed (`drop`, by its index) or replaced.

        `put` has the index and the reference of another version, such as `0=ink@150`.
        `version-SLUG` is the version of the adapter that is added, unless its reference has one.
        """
        rows = list(self.stack)
        place = change.get("drop", "")
        if PLACE.fullmatch(place) and int(place) < len(rows):
            del rows[int(place)]
        elif put := PUT.fullmatch(change.get("put", "")[:MAX_PUT]):
            if int(put[1]) < len(rows):
                new = read_reference(put[2])
                rows[int(put[1])] = replace(rows[int(put[1])], slug=new.slug, version=new.version)
        elif change.get("add"):
            row = read_reference(change["add"])
            if row.version is None:
                row = read_reference(f"{row.slug}@{change.get(f'version-{row.slug}', '')}")
            if row.slug not in {known.slug for known in rows}:
                rows.append(row)
            return replace(self, stack=tuple(rows), find="")
        return replace(self, stack=tuple(rows))

    def request(self, session: Session) -> RenderRequest:
        """The request for the service. Raises InvalidWeights, also for unknown adapters.

        Other invalid values are passed on as typed: the service names them. One image has a twin,
        several are compared with each other.
        """
        fields: dict[str, str] = {}
        stack = []
        for index, row in enumerate(self.stack):
            if row.problem:
                fields[f"weight-{index}"] = row.problem
            if row.text_problem:
                fields[f"text-weight-{index}"] = row.text_problem
            blocks = row.block_problems
            fields |= {f"block-{index}-{name}": problem for name, problem in blocks.items()}
            if row.is_on and not (row.problem or row.text_problem or blocks):
                try:
                    stack.append(row.parse(session))
                except NotFound as error:
                    fields["adapters"] = error.detail
        source = None
        if self.source:
            try:
                source = SourceImage.parse(self.source)
            except InvalidInput as error:
                fields |= error.fields
        optional = {
            "seed": self.seed if self.keep_seed else "",
            "sampler": "" if self.sampler == TEXTS["sampler"] else self.sampler,
            "steps": self.steps,
            "guidance": self.guidance.replace(",", "."),
            "clip_skip": self.clip_skip,
            "width": self.width,
            "height": self.height,
            "base_model": self.base,
            "strength": self.strength.replace(",", ".") if source else "",
        }
        texts: dict[str, Any] = {"count": self.count}
        texts |= {name: text for name, text in optional.items() if text}
        request = RenderRequest.model_construct(
            prompt=self.prompt,
            negative_prompt=self.negative,
            adapters=stack,
            twin=self.count == "1",
            source=source,
            **texts,
        )
        if fields:
            raise InvalidWeights(request, fields)
        return request


TEXTS: Mapping[str, str] = {
    each.name: each.default for each in fields(PlayForm) if isinstance(each.default, str)
}
"""The texts of a form in the order of an address, with those that stand for an absent one."""


class InvalidWeights(InvalidInput):
    """Some weights or the image to start from are invalid.

    `request` holds the rest, so that all can be checked at once.
    """

    def __init__(self, request: RenderRequest, fields: dict[str, str]) -> None:
        super().__init__(" ".join(fields.values()), fields=fields)
        self.request = request


def read_form(sent: Iterable[tuple[str, Any]]) -> PlayForm:
    """Parse a submitted form."""
    form = FormReader(dict(sent))
    places = sorted(int(found[1]) for name in form.texts if (found := ROW.fullmatch(name)))
    places = places[:MAX_ROWS]
    rows: list[AdapterRow] = []
    for place in places:
        row = read_reference(form.text(f"adapter-{place}"))
        weight = form.text(f"weight-{place}") if f"weight-{place}" in form else None
        text = form.text(f"text-weight-{place}")
        first, second, third = (form.text(f"block-{place}-{name}") for name in BLOCKS)
        row = replace(row, weight=weight, text_weight=text, blocks=(first, second, third))
        held = form.text(f"held-{place}")
        rows.append(replace(row, is_on=form.flag(f"on-{place}"), held=held))
    is_blend = form.text("mix") == BLEND
    return PlayForm(
        stack=hold_sum(rows) if is_blend else tuple(replace(row, held="") for row in rows),
        keep_seed=form.flag("keep_seed"),
        live=form.flag("live") or "live-shown" not in form,
        **_read_texts(form.texts),
    )


def read_shown(sent: Mapping[str, Any]) -> int | None:
    """The id of the render that the page shows, from its form; None if it shows none."""
    text = str(sent.get("shown", ""))
    is_id = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))
    return int(text) if is_id and int(text) <= MAX_ID else None


def read_address(query: Iterable[tuple[str, str]]) -> PlayForm:
    """Parse a URL query."""
    pairs = list(query)
    texts = dict(pairs)
    rows: list[AdapterRow] = []
    for name, value in pairs:
        if name == "adapter" and len(rows) < MAX_ROWS:
            rows.append(read_weighted(value))
    return PlayForm(stack=tuple(rows), **_read_texts(texts))


def _read_texts(texts: Mapping[str, str]) -> dict[str, Any]:
    found = {name: texts.get(name, usual) for name, usual in TEXTS.items()}
    mix = BLEND if found["mix"] == BLEND else ""
    return found | {"mix": mix, "sampler": _read_sampler(found["sampler"])}


def _read_sampler(text: str) -> str:
    """The value of a sampler given by its value or label; other text stays, to be refused."""
    try:
        return SamplerName(text or SamplerName.DDIM).value
    except ValueError:
        return text


def sampler_choices(base: BaseModel) -> list[tuple[str, str]]:
    """The samplers of a base model with their labels; the usual one is first."""
    usual, *others = base.options.samplers
    first = usual.value if usual.value == TEXTS["sampler"] else ""
    return [(first, usual.label), *((name.value, name.label) for name in others)]


def unknown_choices(form: PlayForm, bases: Sequence[BaseModel]) -> dict[str, str]:
    """By field: a sampler or a base model that is not in the list that the page shows.

    The page has the first of the list in its place.
    """
    problems = {}
    if form.sampler not in set(SamplerName):
        problems["sampler"] = (
            f"There is no sampler “{form.sampler[:MAX_NAMED]}”; {SamplerName.DDIM.label} is chosen."
        )
    if form.base and form.base not in {base.slug for base in bases}:
        problems["base_model"] = (
            f"There is no base model “{form.base[:MAX_NAMED]}” here; that of the adapter is chosen."
        )
    return problems


def form_of_render(render: Render, base_slug: str, index: int = 0) -> PlayForm:
    """The form that repeats this render; of a strip, the image at this index."""
    return PlayForm(
        prompt=render.prompt,
        negative=render.negative_prompt,
        seed=str(render.seed),
        sampler=render.sampler,
        steps=str(render.steps),
        guidance=f"{render.guidance:g}",
        clip_skip=str(render.clip_skip),
        width=str(render.width),
        height=str(render.height),
        count="1" if render.weights else str(render.count),
        base=base_slug,
        source=render.source_sha256 or "",
        strength="" if render.strength is None else f"{render.strength:g}",
        stack=tuple(row_of(used.slug, used) for used in render.stack_of(index)),
    )


def form_of_request(session: Session, request: RenderRequest) -> PlayForm:
    """The form of a request, whose numbers need not be valid; its adapters must be here."""
    numbers = {name: getattr(request, name) for name in NUMBERS if name in request.model_fields_set}
    texts: dict[str, Any] = {
        name: f"{number:.12g}" for name, number in numbers.items() if number is not None
    }
    return PlayForm(
        prompt=request.prompt,
        negative=request.negative_prompt,
        sampler=request.sampler,
        source=request.source.sha256 or "" if request.source else "",
        stack=tuple(
            row_of(adapters.get_adapter(session, used.adapter_id).slug, used)
            for used in request.adapters
        ),
        **texts,
    )


def form_of_restyle(render: Render, here: Container[int]) -> PlayForm:
    """The form that starts from the image of a render, with its prompts and adapters.

    `here`: ids of adapters that still exist. Seed and settings are the usual ones.
    """
    return PlayForm(
        prompt=render.prompt,
        negative=render.negative_prompt,
        source=f"render:{render.key}",
        stack=tuple(row_of(used.slug, used) for used in render.stack if used.adapter_id in here),
    )


def form_of_recipe(session: Session, opened: OpenedRecipe) -> PlayForm:
    """The form with the settings of a recipe and its adapters that are still here."""
    form = form_of_request(session, request_of(opened))
    return replace(form, base=opened.base_model or "", mix=opened.recipe.mix)
