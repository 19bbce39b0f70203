"""Presets of runs: those that are shipped, and those that somebody saved as changes to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from sqlmodel import Session

from app.registry.datasets import service as datasets
from app.registry.errors import NotFound
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import OwnPreset, Run
from worker.core.families.facts.family_facts import reasons_against
from worker.core.families.family import family_label, find_family
from worker.core.training.config import Optimizer, TrainConfig
from worker.core.training.presets import (
    LARGE_RESOLUTION,
    Preset,
    PromptForm,
    for_optimizer,
    is_small_resolution,
    usual_form,
)

PRESET_WORDS = {
    Preset.QUICK: ("Quick look", "A first look."),
    Preset.BALANCED: ("Balanced", "What most styles need."),
    Preset.THOROUGH: ("Thorough", "Finer detail; trains more layers."),
}
OPTIMIZER_SETTINGS = frozenset(
    {
        "optimizer",
        "learning_rate",
        "text_encoder_learning_rate",
        "lora_plus_ratio",
        "lr_scheduler",
        "ema_decay",
    }
)
"""Settings that are left out of a preset of one's own when another optimizer is chosen."""


def asks_for_evaluation(*changes: Mapping[str, Any]) -> bool:
    """True unless the first of these changes to a preset that names it says otherwise."""
    return next((one["evaluate"] for one in changes if "evaluate" in one), True) is not False


def shipped_preset(name: str | None) -> Preset:
    """The shipped preset of this name; the balanced one for any other text, or none."""
    return Preset(name) if name in set(Preset) else Preset.BALANCED


def get_preset(session: Session, preset_id: int) -> OwnPreset:
    """Look up a preset that somebody saved. Raises NotFound."""
    found = session.get(OwnPreset, preset_id)
    if found is None:
        raise NotFound("This preset does not exist; it may have been deleted. Choose another one.")
    return found


def preset_title(run: Run) -> str:
    """The name of the preset that a run was started with; empty without one."""
    if run.own_preset:
        return str(run.own_preset["name"])
    return PRESET_WORDS[Preset(run.preset)][0] if run.preset in set(Preset) else ""


def prompt_form_of(
    session: Session, dataset_id: int | None, trigger_word: str | None
) -> PromptForm:
    """The form of sample prompts with a trigger word: that of the captions, if most have one."""
    found = trigger_word and datasets.caption_form(session, dataset_id or 0, trigger_word)
    return found or usual_form(trigger_word)


def with_changes(
    preset: TrainConfig,
    changes: Mapping[str, Any],
    optimizer: object = None,
    *,
    family: str | None = None,
) -> TrainConfig:
    """A shipped preset with the changes of one's own, for this optimizer (None: theirs).

    Changes that this version does not know or accept are left out, and those that the family of
    the base model does not have.
    """
    own = {name: value for name, value in changes.items() if name in TrainConfig.model_fields}
    theirs = own.get("optimizer", preset.optimizer)
    is_known = isinstance(optimizer, str) and optimizer in set(Optimizer)
    wanted = optimizer if is_known else theirs
    if wanted != theirs:
        own = {name: value for name, value in own.items() if name not in OPTIMIZER_SETTINGS}
    usual = for_optimizer(preset, wanted).model_dump(mode="json")
    while True:
        try:
            config = TrainConfig.model_validate(usual | own)
            wrong = family_reasons(config, family).keys() & own.keys()
            if not wrong:
                return config
        except ValidationError as error:
            wrong = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
            if not wrong & own.keys():
                own = {}
        own = {name: value for name, value in own.items() if name not in wrong}


def family_reasons(config: TrainConfig, family: str | None) -> dict[str, str]:
    """A sentence for each setting that base models of this family do not have, by name."""
    known = find_family(family)
    return reasons_against(known.facts.options.training, config) if known else {}


def values_to_compare(
    preset: TrainConfig, changes: Mapping[str, Any], optimizer: object, *, family: str | None
) -> dict[str, Any]:
    """The settings to compare those of this optimizer with: a preset with the changes of one's own.

    The optimizer and whether to evaluate are those of the preset, so that others count as changed;
    the other values are those that go with `optimizer` and `preset`, as the form fills them in.
    """
    usual = with_changes(preset, changes, optimizer, family=family).model_dump(mode="json")
    optimizer = with_changes(preset, changes, family=family).optimizer.value
    return usual | {"optimizer": optimizer, "evaluate": asks_for_evaluation(changes)}


def misfit(saved: Mapping[str, Any], base: BaseModel) -> str:
    """Why a preset of one's own may not suit a base model, as a sentence; empty if it does.

    `saved` has its `name`, `config`, and the `base_family` and `resolution` it was saved for.
    """
    family, side = saved.get("base_family"), saved.get("resolution")
    is_other_size = bool(side and base.resolution and _size(side) != _size(base.resolution))
    is_other_family = bool(family and base.family) and family != base.family
    if not (is_other_size or is_other_family) or not saved.get("config"):
        return ""
    return (
        f"The preset “{saved['name']}” was saved for {_base_words(family, side)}, and "
        f"“{base.name}” is {_base_words(base.family, base.resolution)}. Check what it changes."
    )


def base_words(preset: OwnPreset) -> str:
    """The kind of base model that a preset was saved for; empty if that is unknown."""
    return _base_words(preset.base_family, preset.resolution)


def _base_words(family: str | None, resolution: int | None) -> str:
    parts = [family_label(family)] if family else []
    return ", ".join([*parts, f"{resolution} px"] if resolution else parts)


def _size(resolution: int) -> tuple[bool, bool]:
    """The class of a native resolution (pixels), by which shipped presets differ."""
    return is_small_resolution(resolution), resolution >= LARGE_RESOLUTION
