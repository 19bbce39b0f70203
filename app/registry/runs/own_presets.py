"""Presets of one's own: save the settings of a run, list, rename and delete them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, func, select

from app.registry.base_models import service as base_models
from app.registry.db import utcnow
from app.registry.errors import invalid_field
from app.registry.runs import requests, service
from app.registry.runs.presets import PRESET_WORDS, get_preset, shipped_preset
from app.registry.runs.settings import (
    Difference,
    config_differences,
    shipped_values,
)
from app.registry.tables.added_models import BaseModel
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import OwnPreset, Run
from app.registry.validation import checked_name
from worker.core.training.presets import Preset

MAX_PRESETS = 50
NOT_SAVED = "sample_prompts"  # they belong to the dataset and its trigger word
SET_BY_SWEEP = frozenset(
    ("seed", "validation_seed", "evaluate", "patience", "keep_checkpoints", "keep_adapters")
)
"""What a sweep sets for all its runs; no preset of one of them has it."""


def list_presets(session: Session) -> list[OwnPreset]:
    """All presets that somebody saved, by name."""
    return list(session.exec(select(OwnPreset).order_by(OwnPreset.name_key)))


def changes_of(session: Session, run: Run) -> list[Difference]:
    """The changes of a preset of this run to the shipped one: a is shipped, b is the run's."""
    shipped = shipped_values(session, run)
    found = config_differences(shipped, shipped | run.config)
    left_out = {NOT_SAVED} | (SET_BY_SWEEP if run.sweep_id else frozenset())
    return [row for row in found if row.name in shipped and row.name not in left_out]


def save_run_as_preset(session: Session, run_id: int, name: str) -> OwnPreset:
    """Save what a run changed of its shipped preset. Raises InvalidInput, NotFound."""
    run = service.get_run(session, run_id)
    changes = {row.name: row.b for row in changes_of(session, run)}
    base = base_models.base_of(session, run.base_model_id)
    return save_changes(session, name, shipped_preset(run.preset), changes, base)


def save_changes(
    session: Session, name: str, preset: Preset, changes: Mapping[str, Any], base: BaseModel | None
) -> OwnPreset:
    """Save what differs from a shipped preset, but no sample prompts. Raises InvalidInput.

    `base`: the base model that the settings are for.
    """
    saved = OwnPreset(
        name=name,
        name_key="",
        preset=preset,
        config={key: value for key, value in changes.items() if key != NOT_SAVED},
        base_family=base.family if base else None,
        resolution=base.resolution if base else None,
    )
    return _add(session, saved)


def create_preset(
    session: Session, name: str, preset: Preset, config: Mapping[str, Any]
) -> OwnPreset:
    """Save changes to a shipped preset, which suit any base model. Raises InvalidInput."""
    if NOT_SAVED in config:
        sentence = "Sample prompts belong to a dataset and cannot be part of a preset."
        raise invalid_field(NOT_SAVED, sentence)
    checked = requests.check_config(config).model_dump(mode="json")
    changes = {key: value for key, value in checked.items() if key in config}
    return _add(session, OwnPreset(name=name, name_key="", preset=preset, config=changes))


def rename_preset(session: Session, preset_id: int, name: str) -> OwnPreset:
    """Rename a preset. Raises NotFound, or InvalidInput if the name is taken."""
    preset = get_preset(session, preset_id)
    preset.name = name
    return _store(session, preset)


def delete_preset(session: Session, preset_id: int) -> OwnPreset:
    """Delete a preset until it is restored; its name is free. Raises NotFound.

    Runs that were started with it keep their settings.
    """
    preset = get_preset(session, preset_id)
    preset.deleted_at = utcnow()
    preset.name_key = f"\n{preset_id}"  # that of no name
    session.add(preset)
    session.flush()
    return preset


def restore_preset(session: Session, preset_id: int) -> OwnPreset:
    """Undo `delete_preset`. Raises NotFound, or InvalidInput if its name is taken now."""
    with deleted_too(session):
        preset = get_preset(session, preset_id)
    preset.deleted_at = None
    return _store(session, preset)


def _add(session: Session, preset: OwnPreset) -> OwnPreset:
    if not preset.config:
        title = PRESET_WORDS[Preset(preset.preset)][0]
        sentence = f"Nothing differs from the preset “{title}”, so there is nothing to save."
        raise invalid_field("config", sentence)
    mine = select(func.count()).where(OwnPreset.owner_id == preset.owner_id)
    if session.exec(mine).one() >= MAX_PRESETS:
        sentence = f"There are {MAX_PRESETS} presets of your own already. Delete one first."
        raise invalid_field("name", sentence)
    return _store(session, preset)


def _store(session: Session, preset: OwnPreset) -> OwnPreset:
    """Store a preset under its name. Raises InvalidInput if it is empty, too long or taken."""
    preset.name = checked_name(preset.name)
    preset.name_key = preset.name.casefold()
    shipped = {title.casefold() for title, _ in PRESET_WORDS.values()} | set(Preset)
    same = select(OwnPreset.id).where(
        OwnPreset.owner_id == preset.owner_id,
        OwnPreset.name_key == preset.name_key,
        col(OwnPreset.id) != (preset.id or 0),
    )
    with session.no_autoflush:
        is_taken = preset.name_key in shipped or session.exec(same).first() is not None
    try:
        if not is_taken:
            with session.begin_nested():
                session.add(preset)
                session.flush()
            return preset
    except IntegrityError:  # somebody else took the name just now
        pass
    sentence = f"There is a preset called “{preset.name}” already. Choose another name."
    raise invalid_field("name", sentence)
