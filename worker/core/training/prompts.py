"""Parses sample prompts with options in the notation of sd-scripts."""

import re
from dataclasses import dataclass, replace
from typing import Any

FLAG = re.compile(r"(?:^|\s)--([a-z]+)(?:\s+|$)")
SIDE_STEP = 8
OPTIONS: dict[str, tuple[str, type[int] | type[float], int, int]] = {
    "d": ("seed", int, 0, 2**32 - 1),
    "w": ("width", int, 32, 2_048),
    "h": ("height", int, 32, 2_048),
    "l": ("guidance", float, 0, 30),
    "s": ("steps", int, 1, 150),
    "a": ("weight", float, -10, 10),
}
"""The field of each option, its type and its bounds."""


class PromptError(ValueError):
    """The options of a prompt cannot be read; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """A prompt and its options; None where the config decides."""

    text: str
    negative: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    guidance: float | None = None
    steps: int | None = None
    weight: float = 1.0


def parse_prompt(line: str) -> SamplePrompt:
    """The prompt in a line like `castle, ink --d 7 --w 96 --a 0.8`. Raises PromptError.

    --d seed, --w width and --h height in pixels, --l guidance, --s steps, --n negative prompt,
    --a weight of the adapter (0: the base alone).
    """
    text, *parts = FLAG.split(line)
    prompt = SamplePrompt(text.strip())
    if not prompt.text:
        raise PromptError("A sample prompt needs a text before its options.")
    for flag, value in zip(parts[::2], parts[1::2], strict=True):
        prompt = replace(prompt, **_parse_flag(flag, value.strip()))
    return prompt


def _parse_flag(flag: str, value: str) -> dict[str, Any]:
    if flag == "n":
        return {"negative": value}
    if flag not in OPTIONS:
        known = ", ".join(f"--{name}" for name in [*OPTIONS, "n"])
        raise PromptError(f"Unknown option --{flag} in a sample prompt. Use {known}.")
    field, kind, low, high = OPTIONS[flag]
    try:
        number = kind(value)
    except ValueError:
        number = high + 1
    if not low <= number <= high:
        raise PromptError(f"--{flag} of a sample prompt must be a number from {low:,} to {high:,}.")
    if flag in "wh" and number % SIDE_STEP:
        raise PromptError(f"--{flag} of a sample prompt must be a multiple of {SIDE_STEP}.")
    return {field: number}
