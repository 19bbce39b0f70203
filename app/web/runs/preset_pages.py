"""Presets that somebody saves: of the form of a new run or of a run; list and rename them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastapi import Request
from starlette.responses import Response

from app.registry.db import Session
from app.registry.errors import InvalidInput
from app.registry.runs import own_presets, requests, service
from app.registry.runs.presets import PRESET_WORDS, base_words, shipped_preset, values_to_compare
from app.registry.runs.settings import setting_label, value_words
from app.registry.tables.runs import OwnPreset
from app.web.access.needs import Action, Router
from app.web.forms import SentForm
from app.web.runs.forms import OWN_PRESET, TrainForm
from app.web.runs.plan import find_choices
from app.web.state import Id, State, session_of
from app.web.templates import redirect_with_notice, render

router = Router(include_in_schema=False)

FIELD = "preset_name"  # on the form of a new run
NOT_TAKEN = "This preset was not saved yet. Choose “Save the preset”, or empty this field."


@dataclass(frozen=True)
class FormPreset:
    """The name that was typed, while it is not saved, or that of the preset that was saved."""

    name: str = ""
    saved: str = ""
    is_refused: bool = False


def save_typed(session: Session, form: TrainForm, name: str) -> tuple[TrainForm, FormPreset]:
    """Save what the form changed as a preset, and choose it; all settings stay as they are.

    Like on the page of a run, all is compared with the values that go with the optimizer. Raises
    InvalidInput: what is wrong with the preset itself is named at the field of its name.
    """
    choices = find_choices(session, form)
    preset = choices.preset
    family = choices.base.family if choices.base else None
    typed = choices.default.model_dump(mode="json") | form.typed
    config = requests.check_config(typed, family=family)
    values = config.model_dump(mode="json")
    usual = values_to_compare(choices.shipped[preset], {}, values["optimizer"], family=family)
    changes = {name: value for name, value in values.items() if value != usual[name]}
    try:
        row = own_presets.save_changes(session, name, preset, changes, choices.base)
    except InvalidInput as error:
        raise InvalidInput(error.detail, fields={FIELD: error.detail}) from error
    texts = choices.default_texts | form.changed
    form = replace(form, preset=preset, own_preset=row.key, values=texts, shown=None, kept={})
    return form, FormPreset(saved=row.name)


@dataclass(frozen=True)
class PresetRow:
    """A saved preset: what it changes, in words, and what was typed to rename it."""

    preset: OwnPreset
    value: str
    title: str
    saved_for: str
    changes: list[tuple[str, str]]
    name: str
    error: str = ""


@router.get("/runs/{run_id}/preset", Action.LOOK)
def save_form(request: Request, run_id: Id) -> Response:
    """Show what a preset of this run changes, and ask for its name."""
    return _save_page(request, run_id, "", "")


@router.post("/runs/{run_id}/preset", Action.CREATE)
def save(request: Request, run_id: Id, state: State, sent: SentForm) -> Response:
    """Save a preset; on an error show the form again with it."""
    name = str(sent.get("name", ""))
    try:
        with state.database.write() as session:
            preset = own_presets.save_run_as_preset(session, run_id, name)
    except InvalidInput as error:
        return _save_page(request, run_id, name, error.detail)
    text = f"“{preset.name}” was saved. It stands beside the other presets on the form."
    return redirect_with_notice("/train/presets", text)


def _save_page(request: Request, run_id: int, name: str, error: str) -> Response:
    with session_of(request) as session:
        run = service.get_run(session, run_id)
        changes = own_presets.changes_of(session, run)
    return render(
        request,
        "runs/save_preset.html",
        run=run,
        preset=_title(run.preset),
        changes=changes,
        name=name,
        error=error,
        status=422 if error else 200,
    )


@router.get("/train/presets", Action.LOOK)
def presets(request: Request) -> Response:
    """List the saved presets."""
    return _list_page(request)


@router.post("/train/presets/{preset_id}/rename", Action.EDIT)
def rename(request: Request, preset_id: Id, state: State, sent: SentForm) -> Response:
    """Rename a preset; on an error show the list again with it."""
    name = str(sent.get("name", ""))
    try:
        with state.database.write() as session:
            preset = own_presets.rename_preset(session, preset_id, name)
    except InvalidInput as error:
        return _list_page(request, wrong=(preset_id, name, error.detail))
    return redirect_with_notice("/train/presets", f"The preset is called “{preset.name}” now.")


def _list_page(request: Request, *, wrong: tuple[int, str, str] | None = None) -> Response:
    with session_of(request) as session:
        found = own_presets.list_presets(session)
    rows = [_row(preset, wrong) for preset in found]
    return render(request, "runs/presets.html", status=422 if wrong else 200, rows=rows)


def _row(preset: OwnPreset, wrong: tuple[int, str, str] | None) -> PresetRow:
    _, name, error = wrong if wrong and wrong[0] == preset.id else (0, preset.name, "")
    return PresetRow(
        preset=preset,
        value=f"{OWN_PRESET}{preset.key}",
        title=_title(preset.preset),
        saved_for=base_words(preset),
        changes=[(setting_label(key), value_words(key, new)) for key, new in preset.config.items()],
        name=name,
        error=error,
    )


def _title(preset: str | None) -> str:
    return PRESET_WORDS[shipped_preset(preset)][0]
