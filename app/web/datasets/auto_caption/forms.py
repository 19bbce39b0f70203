"""The form of an order of captions: read, checked, and filled with what was asked last."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.datastructures import FormData, QueryParams

from app.registry.datasets.auto_caption.orders import OrderProgress
from app.registry.datasets.auto_caption.providers import SERVERS, Provider, default_words
from app.registry.datasets.edits.selection import Selection, read_ids
from app.registry.datasets.filters import ImageFilter
from app.registry.errors import InvalidInput
from app.registry.job_kinds.caption_kinds import CaptionArgs
from app.registry.tables.datasets import Dataset
from app.web.form_reader import FormReader
from worker.core.captioning.do_not_name import parse_words
from worker.core.captioning.interface import DEFAULT_PROMPT
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.words import CaptionKind

SERVER_FIELDS = ("address", "model")  # fields that each kind of server has of its own
REMOVED_MODEL = re.compile(rf"{ProviderKind.LOCAL}-[0-9]{{1,9}}")  # which the order then refuses


@dataclass(frozen=True)
class CaptionForm:
    """An order of captions as typed, with an error for each field that is wrong.

    `servers`: address and model by kind of server. `images`: ids such as “3 5 8-12”; with `filter`,
    all images that match it but these; without both, all images.
    """

    provider: str = ProviderKind.BUILTIN
    servers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    prompt: str = DEFAULT_PROMPT
    do_not_name: str = ""
    mode: CaptionMode = CaptionMode.FILL
    kind: CaptionKind | None = None
    write: bool = True
    images: str = ""
    filter: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def request(self) -> CaptionArgs:
        """The request to the provider."""
        kind, _, number = self.provider.partition("-")
        provider = ProviderKind(kind)
        asked = self.servers.get(kind, {})
        return CaptionArgs(
            provider=provider,
            address=asked.get("address", ""),
            model=asked.get("model", ""),
            model_id=int(number) if number else None,
            prompt=self.prompt,
            do_not_name=parse_words(self.do_not_name),
        )

    @property
    def selection(self) -> Selection | None:
        """The chosen images; None: all of the dataset. Raises InvalidInput."""
        if not self.images and self.filter is None:
            return None
        wanted = ImageFilter.from_text(self.filter or "")
        return Selection(read_ids(self.images), self.filter is not None, wanted)

    def with_errors(self, errors: Mapping[str, str]) -> CaptionForm:
        """The form with these errors; those of a server stand beside its own fields."""
        kind = self.provider.partition("-")[0]
        named = {
            f"{kind}_{name}" if name in SERVER_FIELDS else name: sentence
            for name, sentence in errors.items()
        }
        return replace(self, errors=named)


def new_form(
    dataset: Dataset,
    providers: Sequence[Provider],
    *,
    last: OrderProgress | None = None,
    asked: CaptionArgs | None = None,
) -> CaptionForm:
    """The form with what was asked last, else with what is configured. `asked`: by a preview."""
    servers: dict[str, dict[str, str]] = {
        p.kind: {"address": p.address, "model": p.model} for p in providers if p.kind in SERVERS
    }
    usable = [p.value for p in providers if not p.problem]
    form = CaptionForm(servers=servers, do_not_name=", ".join(default_words(dataset)))
    if last is not None:
        form = replace(form, mode=last.args.mode, kind=last.args.caption_kind)
    given = asked or (last.args if last else None)
    if given is None:
        found = {p.value for p in providers if p.models}  # nobody chose these
        configured = [p.value for p in providers if p.kind in SERVERS and p.address and p.model]
        configured = [value for value in configured if value in usable and value not in found]
        return replace(form, provider=configured[0]) if configured else form
    value = given.provider if given.model_id is None else f"{given.provider}-{given.model_id}"
    if value in usable:
        form = replace(form, provider=value)
    if given.provider in SERVERS:
        typed = {"address": given.address, "model": given.model}
        form = replace(form, servers=servers | {given.provider: typed}, prompt=given.prompt)
    return replace(form, do_not_name=", ".join(given.do_not_name))


def read_form(sent: FormData | QueryParams, providers: Sequence[Provider]) -> CaptionForm:
    """The form as it was sent. Raises InvalidInput for what no form has."""
    form = FormReader({name: value for name, value in sent.multi_items() if name != "image"})
    provider = form.text("provider", ProviderKind.BUILTIN)
    if provider not in {p.value for p in providers} and not REMOVED_MODEL.fullmatch(provider):
        raise InvalidInput("Choose who writes the captions.", fields={"provider": "Unknown."})
    servers: dict[str, dict[str, str]] = {
        p.kind: {name: form.text(f"{p.kind}_{name}", getattr(p, name)) for name in SERVER_FIELDS}
        for p in providers
        if p.kind in SERVERS
    }
    mode = form.choice("mode", CaptionMode) if "mode" in form else CaptionMode.FILL
    kind = form.choice("kind", CaptionKind) if form.text("kind") else None
    form.check()
    return CaptionForm(
        provider=provider,
        servers=servers,
        prompt=form.text("prompt", DEFAULT_PROMPT),
        do_not_name=form.text("do_not_name"),
        mode=mode,
        kind=kind,
        write=form.flag("write") and mode is CaptionMode.FILL,
        **read_selection(sent),
    )


def read_selection(sent: FormData | QueryParams) -> dict[str, Any]:
    """The images in a form or an address: `images` and `image`, or `all` that match `filter`."""
    ids = " ".join([str(sent.get("images", "")), *(str(one) for one in sent.getlist("image"))])
    chosen: dict[str, Any] = {"images": " ".join(ids.split())}
    if sent.get("all"):
        chosen["filter"] = str(sent.get("filter", ""))
    return chosen
