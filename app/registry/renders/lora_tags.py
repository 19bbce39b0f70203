"""LoRA tags in a prompt, in the syntax of A1111: `<lora:ink-v2:0.8>`.

`<lora:name>` (at its usual weight), `<lora:name:weight>` and
`<lora:name:text_encoder_weight:weight>`; weights may have the prefix `te=` or `unet=`. The name is
an adapter's slug, its name, or that of its downloaded file.
"""

from __future__ import annotations

import math
import re

from sqlmodel import Session

from app.registry.adapters import service as adapters
from app.registry.errors import InvalidInput, NotFound
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.slugs import slugify
from app.registry.tables.adapters import Adapter
from app.registry.validation import too_long
from worker.core.inference.config import MAX_PROMPT_CHARACTERS
from worker.core.lora_files.weights import weight_problem

MAX_TAGGED_PROMPT = 10_000  # characters of a prompt with its tags
MAX_TAGS = 100
TAG = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)
OPEN_TAG = re.compile(r"<lora:[^<>\n]{0,60}", re.IGNORECASE)  # where no whole one is left
FILE = re.compile(
    r"(?P<slug>.+)-(v|step)(?P<version>[0-9]{1,9})(-peft)?(-(fp16|bf16|fp32))?(-tags)?"
)


class NoSuchAdapter(InvalidInput):
    """A tag names an adapter that is not here."""


def is_too_long(prompt: str) -> bool:
    """True if a prompt, with its LoRA tags or without them, is longer than one can be."""
    return len(prompt) > MAX_TAGGED_PROMPT or len(TAG.sub("", prompt)) > MAX_PROMPT_CHARACTERS


def take_tags(session: Session, prompt: str) -> tuple[str, list[WeightedAdapter]]:
    """Return the prompt without its LoRA tags, and their adapters. Raises InvalidInput."""
    if len(prompt) > MAX_TAGGED_PROMPT:
        raise _invalid_prompt(too_long(prompt, MAX_TAGGED_PROMPT))
    *before_tags, end = TAG.split(prompt)  # text and tag in turn
    tags = before_tags[1::2]
    if len(tags) > MAX_TAGS:
        raise _invalid_prompt(f"The prompt has more than {MAX_TAGS} LoRA tags.")
    if lone := next(filter(None, map(OPEN_TAG.search, [*before_tags[::2], end])), None):
        raise _invalid_prompt(f"“{lone[0]}” has no end: write <lora:name:0.8>.")
    if not tags:
        return prompt, []
    named = [_read_tag(session, tag) for tag in tags]
    return ("".join(text.rstrip() for text in before_tags[::2]) + end).strip(), named


def _read_tag(session: Session, tag: str) -> WeightedAdapter:
    name, *words = (word.strip() for word in tag.split(":"))
    adapter, version = _find_adapter(session, name, tag)
    if not words:
        return WeightedAdapter(adapter_id=adapter.key, version=version)
    weights = {"te": 1.0, "unet": math.nan}
    for place, word in zip(("te", "unet"), words, strict=False):
        key, equals, value = word.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.inf
        if not math.isfinite(number) or (equals and key not in weights):
            raise _invalid_prompt(f"“<lora:{tag}>” has an invalid weight: write <lora:{name}:0.8>.")
        weights[key or place] = number
    if len(words) > 2:
        raise _invalid_prompt(f"“<lora:{tag}>” has more than two weights: write <lora:{name}:0.8>.")
    if math.isnan(weights["unet"]):  # a single weight applies to both, as in A1111
        weights["unet"] = weights["te"]
    for weight in weights.values():
        if problem := weight_problem(weight):
            raise _invalid_prompt(f"“<lora:{tag}>” in the prompt: {problem}")
    return WeightedAdapter(
        adapter_id=adapter.key,
        version=version,
        weight=weights["unet"],
        text_encoder_weight=weights["te"],
    )


def _find_adapter(session: Session, name: str, tag: str) -> tuple[Adapter, str | None]:
    asked: list[tuple[str, str | None]] = [(name, None)]
    if file := FILE.fullmatch(name):
        asked.append((file["slug"], file["version"]))
    asked.append((slugify(name, fallback=name), None))  # its name, such as “Ink Wash”
    for slug, version in asked:
        try:
            return adapters.adapter_by_slug(session, slug), version
        except NotFound as error:
            missing = error
    sentence = f"“<lora:{tag}>” in the prompt: {missing.detail}"
    raise NoSuchAdapter(sentence, fields={"prompt": sentence})


def _invalid_prompt(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, fields={"prompt": sentence})
