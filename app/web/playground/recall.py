"""Settings of the playground from a text or an image, ours or of another program."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from app.registry.adapters import service as adapters
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.renders import sources
from app.registry.renders.lora_tags import NoSuchAdapter, take_tags
from app.registry.renders.sources import SourceImage
from app.web.addresses import MAX_ADDRESS
from app.web.forms import SentForm
from app.web.playground.adapter_rows import AdapterRow, row_of
from app.web.playground.forms import PlayForm
from app.web.playground.pages import play_page
from app.web.state import State
from app.web.templates import go_to, render, render_fragment, wants_fragment
from worker.core.inference.read_infotext import (
    Infotext,
    InfotextError,
    parse_infotext,
    read_image_infotext,
)
from worker.core.words import SamplerName

router = APIRouter(include_in_schema=False)

TAG = re.compile(r"<lora:[^<>]{1,200}>")
MAX_TAGS = 40


@dataclass(frozen=True)
class Recalled:
    """A form with the settings of a text; `missing`: sentences on what of it is not here."""

    form: PlayForm
    missing: list[str]


@dataclass(frozen=True)
class RecallAnswer:
    """The reason why nothing was recalled, or what is missing and the address of the rest."""

    sentences: list[str]
    link: str


@router.post("/play/recall")
def recall(request: Request, state: State, sent: SentForm) -> Response:
    """Open the playground with the settings of the text or the image in the form."""
    file, text = sent.get("image"), str(sent.get("infotext") or "")
    try:
        if isinstance(file, UploadFile) and file.size:
            text = read_image_infotext(file.file)
        found = parse_infotext(text)
        with state.database.read() as session:
            recalled = _form_of(session, found)
        if len(recalled.form.link) > MAX_ADDRESS:
            raise InfotextError("These settings are too long for an address. Shorten the prompt.")
    except InfotextError as error:
        if not wants_fragment(request):
            raise InvalidInput(str(error)) from error
        return render_fragment("playground/_recalled.html", RecallAnswer([str(error)], ""))
    if not recalled.missing:
        return go_to(request, recalled.form.link)
    if not wants_fragment(request):
        with state.database.read() as session:
            context = play_page(session, recalled.form)
        context = replace(context, recalled=recalled.missing)
        return render(request, "playground/play.html", context)
    answer = RecallAnswer(recalled.missing, recalled.form.link)
    return render_fragment("playground/_recalled.html", answer)


def _form_of(session: Session, found: Infotext) -> Recalled:
    """The form of a text: adapters that its tags name are put into the stack."""
    missing: list[str] = []
    rows: list[AdapterRow] = []
    prompt = found.prompt
    for tag in TAG.findall(prompt)[:MAX_TAGS]:
        try:
            row = _row_of(session, tag, found)
        except AppError as error:
            is_unknown = isinstance(error, NoSuchAdapter)
            missing.append(f"The adapter {tag} is not here." if is_unknown else error.detail)
            prompt = prompt.replace(tag, "")
            continue
        rows.append(row)
        prompt = prompt.replace(tag, "")
    sampler = SamplerName.DDIM
    if found.sampler:
        try:
            sampler = SamplerName(found.sampler)
        except ValueError:
            missing.append(f"The sampler {found.sampler[:40]} is not here, so DDIM is chosen.")
    source = _source_of(session, found, missing)
    numbers = {
        "strength": found.strength if source else None,
        "seed": found.seed,
        "steps": found.steps,
        "guidance": found.guidance,
        "width": found.width,
        "height": found.height,
        "clip_skip": found.clip_skip,
    }
    texts: dict[str, Any] = {
        name: f"{number:.12g}" for name, number in numbers.items() if number is not None
    }
    form = PlayForm(
        prompt=prompt.strip(),
        negative=found.negative_prompt,
        sampler=sampler.value,
        source=source,
        stack=tuple(rows),
        **texts,
    )
    return Recalled(form, missing)


def _source_of(session: Session, found: Infotext, missing: list[str]) -> str:
    """The image that a text says it started from, as the form names it; empty without one."""
    if found.source_sha256:
        named = SourceImage(sha256=found.source_sha256)
        try:
            return sources.find_source(session, named).sha256
        except NotFound:
            pass
    if found.strength is not None or found.source_sha256:
        missing.append(
            "It started from another image, which is not here: choose it under “Start from an "
            "image”."
        )
    return ""


def _row_of(session: Session, tag: str, found: Infotext) -> AdapterRow:
    """The row of a LoRA tag. Raises AppError if its adapter is not here."""
    _, (named,) = take_tags(session, tag)
    row = row_of(adapters.get_adapter(session, named.adapter_id).slug, named)
    factors = found.block_factors.get(tag.strip("<>").split(":")[1].strip())
    if factors is None:
        return row
    first, second, third = (f"{factor:g}" for factor in factors)
    return replace(row, blocks=(first, second, third))
