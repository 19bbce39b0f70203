"""The settings of the form of a new run, saved as a preset of one's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.registry.db import Session
from app.registry.errors import InvalidInput
from app.registry.runs import own_presets
from app.web.runs import plan as plans
from app.web.runs.forms import TrainForm

FIELD = "preset_name"
NOT_TAKEN = "This preset was not saved yet. Choose “Save the preset”, or empty this field."


@dataclass(frozen=True)
class FormPreset:
    """The name that was typed, while it is not saved, or that of the preset that was saved."""

    name: str = ""
    saved: str = ""
    is_refused: bool = False


def save_form(session: Session, form: TrainForm, name: str) -> tuple[TrainForm, FormPreset]:
    """Save what the form changed as a preset, and choose it; all settings stay as they are.

    Raises InvalidInput: what is wrong with the preset itself is named at the field of its name.
    """
    choices = plans.find_choices(session, form)
    preset, changes = plans.changes_to_save(choices, form)
    try:
        row = own_presets.save_changes(session, name, preset, changes, choices.base)
    except InvalidInput as error:
        raise InvalidInput(error.detail, fields={FIELD: error.detail}) from error
    values = choices.default_texts | form.changed
    form = replace(form, preset=preset, own_preset=row.key, values=values, shown=None, kept={})
    return form, FormPreset(saved=row.name)
