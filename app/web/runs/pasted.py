"""Settings that were pasted into the form of a new run as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, NoReturn

from app.registry.errors import InvalidInput
from app.registry.runs import requests
from app.registry.validation import too_long
from app.registry.wording import plural
from app.web.forms import MAX_TEXT
from app.web.runs.forms import TrainForm, to_texts
from worker.core.old_names import accept_old_names
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset, for_optimizer

FIELD = "pasted"
MAX_NAMED = 20  # settings that could not be used, each with its reason
MAX_NAME = 80  # characters of a name that somebody else made up
NOT_TAKEN = "These settings were not used yet. Choose “Use these settings”, or empty this field."


@dataclass(frozen=True)
class PastedSettings:
    """The outcome of a pasted text: `used` settings as text, the others with the reason.

    `text` is shown again while something is wrong with it.
    """

    text: str = ""
    error: str = ""
    used: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    preset: Preset | None = None

    @property
    def longest(self) -> int:
        """Characters that a pasted text may have."""
        return MAX_TEXT

    @property
    def is_open(self) -> bool:
        """True if something has to be said about it."""
        return bool(self.text or self.error or self.used)

    @property
    def named(self) -> list[tuple[str, str]]:
        """The first refused settings, each with its reason."""
        shown = list(self.refused.items())[:MAX_NAMED]
        return [(_shown_name(name), reason) for name, reason in shown]

    @property
    def more(self) -> int:
        """Number of refused settings beyond those that are named."""
        return max(0, len(self.refused) - MAX_NAMED)

    @property
    def summary(self) -> str:
        """The outcome as a sentence; empty if nothing was used."""
        if not self.used:
            return ""
        is_one = len(self.used) == 1
        return f"{plural(len(self.used), 'setting')} {'was' if is_one else 'were'} filled in."


def fill_in(form: TrainForm, text: str) -> tuple[TrainForm, PastedSettings]:
    """The form with the pasted settings, and what became of each; all else stays as it was."""
    pasted = read_pasted(text)
    if not pasted.used:
        return form, pasted
    form = replace(form, values={**form.changed, **pasted.used}, shown=None)
    if pasted.preset:
        form = replace(form, preset=pasted.preset, own_preset=None)
    return form, pasted


def read_pasted(text: str) -> PastedSettings:
    """The settings in a pasted JSON object.

    The object has settings, or is a run or the body of a request for one, with its `config` and
    `preset`. Wrong and unknown settings are refused one by one.
    """
    try:
        content = _read_object(text)
    except InvalidInput as error:
        return PastedSettings(text=text if len(text) <= MAX_TEXT else "", error=error.detail)
    config = content.get("config")
    given = config if isinstance(config, dict) else content
    preset = content.get("preset") if isinstance(config, dict) else None
    try:
        given = accept_old_names(given)
    except ValueError as error:
        return PastedSettings(text=text, error=str(error))
    used, refused = _check(given)
    if not used:
        refused = refused or {"": "It has no settings."}
    return PastedSettings(
        text=text if refused else "",
        error="" if used else "None of these settings can be used.",
        used=used,
        refused=refused,
        preset=Preset(preset) if isinstance(preset, str) and preset in set(Preset) else None,
    )


def _read_object(text: str) -> dict[str, Any]:
    """The JSON object in this text. Raises InvalidInput with what to do."""
    if not text.strip():
        _refuse("Paste settings first.")
    if len(text) > MAX_TEXT:
        _refuse(f"These are no settings: {too_long(text, MAX_TEXT)}")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, character {error.colno}"
        ends = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        hint = "The text ends too early; copy all of it." if ends else f"Look at {at}."
        _refuse(f"This is not JSON. {hint}")
    except InvalidInput:
        raise
    except ValueError:  # Python converts no integer of more than 4,300 digits
        _refuse("A number in this has too many digits to be a setting.")
    except RecursionError:
        _refuse("This is nested too deeply to be settings.")
    if not isinstance(content, dict):
        _refuse('This must be a JSON object of settings, such as {"rank": 8}.')
    return content


def _refuse(sentence: str) -> NoReturn:
    raise InvalidInput(sentence)


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"{name} is no number that a setting can have.")


def _check(given: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The settings that can be used, as text, and the others with the reason for each.

    They are checked alone: what does not go with the rest of the form is said at its field.
    """
    known = TrainConfig.model_fields
    refused = {name: _unknown(name) for name in given if name not in known}
    sound = {name: value for name, value in given.items() if name in known}
    while sound:
        usual = for_optimizer(TrainConfig(), sound.get("optimizer")).model_dump(mode="json")
        try:
            texts = to_texts(requests.check_config(usual | sound))
            return {name: texts[name] for name in sound}, refused
        except InvalidInput as error:
            wrong = {name: why for name, why in error.fields.items() if name in sound}
            refused |= wrong or dict.fromkeys(sound, error.detail)
            sound = {name: value for name, value in sound.items() if name not in refused}
    return {}, refused


def _unknown(name: str) -> str:
    close = get_close_matches(name[:MAX_NAME], TrainConfig.model_fields, n=1)
    hint = f" Did you mean “{close[0]}”?" if close else ""
    return f"There is no setting with this name.{hint}"


def _shown_name(name: str) -> str:
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
