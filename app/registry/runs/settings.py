"""Settings of a run in words: all of them, which differ from its preset, and those of two runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, get_args

from pydantic import Field
from sqlmodel import Session

from app.registry.base_models import service as base_models
from app.registry.datasets.used_datasets import image_total, used_datasets
from app.registry.runs.presets import shipped_preset, values_to_compare
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Run
from worker.core.families.family import FALLBACK_FAMILY, find_family
from worker.core.training.config import Group, TrainConfig
from worker.core.training.presets import Preset, form_of, preset_config, usual_form
from worker.core.words import ENUM_LABELS


@dataclass(frozen=True)
class Setting:
    """A setting of a run; `preset` is the value of its preset, `words` are for people."""

    name: Annotated[str, Field(description="Name of the setting.")]
    label: Annotated[str, Field(description="The setting, as on the page.")]
    group: Annotated[Group | None, Field(description="The group that it has on the form.")]
    value: Annotated[Any, Field(description="Value in the run.")]
    words: Annotated[str, Field(description="The value, as on the page.")]
    preset: Annotated[Any, Field(description="Value of the preset; null without a preset.")]
    preset_words: Annotated[str, Field(description="The preset's value, as on the page.")]
    changed: Annotated[bool, Field(description="True if the run differs from its preset.")]


@dataclass(frozen=True)
class Difference:
    """A value of two things, side by side."""

    name: Annotated[str, Field(description="What is compared, as a word.")]
    label: Annotated[str, Field(description="What is compared, as on the page.")]
    a: Annotated[Any, Field(description="The first value.")]
    b: Annotated[Any, Field(description="The second value.")]
    a_words: Annotated[str, Field(description="The first value, as on the page.")]
    b_words: Annotated[str, Field(description="The second value, as on the page.")]


def run_settings(session: Session, run: Run) -> list[Setting]:
    """All settings of a run that its base model has, in the order of the form, compared with its
    preset.

    The preset is that for its base model, number of images and optimizer, as on the form.
    """
    usual = _preset_values(session, run)
    hidden = _hidden_settings(session, run)
    found = []
    for name in setting_names(run.config):
        if name in hidden:
            continue
        value = setting_value(run.config, name)
        preset = usual.get(name) if usual else None
        found.append(
            Setting(
                name=name,
                label=setting_label(name),
                group=_group_of(name),
                value=value,
                words=value_words(name, value),
                preset=preset,
                preset_words=value_words(name, preset) if usual else "",
                changed=bool(usual) and name in usual and value != preset,
            )
        )
    return found


def _hidden_settings(session: Session, run: Run) -> set[str]:
    """The settings that mean nothing for the base model of a run."""
    family = find_family(base_models.base_of(session, run.base_model_id).family)
    return (family or FALLBACK_FAMILY).facts.options.hidden


def _preset_values(session: Session, run: Run) -> dict[str, Any]:
    """The values of the run's preset; empty without a preset."""
    if run.preset not in set(Preset):
        return {}
    return _values_for(session, run, (run.own_preset or {}).get("config", {}))


def shipped_values(session: Session, run: Run) -> dict[str, Any]:
    """The values of the shipped preset of a run (without one: balanced), like those above."""
    return _values_for(session, run, {})


def _values_for(session: Session, run: Run, own: Mapping[str, Any]) -> dict[str, Any]:
    base = base_models.base_of(session, run.base_model_id)
    shipped = _shipped(session, run, base)
    usual = values_to_compare(shipped, own, run.config.get("optimizer"), family=base.family)
    if "evaluate" not in run.config:  # of an earlier release: no preset asked for it
        del usual["evaluate"]
    return usual


def _shipped(session: Session, run: Run, base: BaseModel) -> TrainConfig:
    return preset_config(
        shipped_preset(run.preset),
        resolution=base.resolution or 512,
        images=image_total(used_datasets(session, run)),
        family=find_family(base.family),
        prompt_form=form_of(run.config.get("sample_prompts", [])) or usual_form(run.trigger_word),
        evaluate=bool(run.config.get("evaluate")),
    )


def setting_names(*configs: Mapping[str, Any]) -> list[str]:
    """The names of all settings in the order of the form, then those of other releases."""
    known = TrainConfig.model_fields
    others = {name for config in configs for name in config} - known.keys()
    return [*known, *sorted(others)]


def setting_value(config: Mapping[str, Any], name: str) -> Any:
    """The value of a setting; one of a later release had its default value before."""
    if name in config:
        return config[name]
    field = TrainConfig.model_fields.get(name)
    return field.get_default(call_default_factory=True) if field else None


def setting_label(name: str) -> str:
    """The title of a setting, as on the form."""
    field = TrainConfig.model_fields.get(name)
    return (field.title if field else None) or name.replace("_", " ").capitalize()


def _group_of(name: str) -> Group | None:
    field = TrainConfig.model_fields.get(name)
    extra = field.json_schema_extra if field else None
    return Group(str(extra["group"])) if isinstance(extra, dict) else None


def value_words(name: str, value: object) -> str:
    """The value of a setting as text for users; a choice as the form calls it."""
    if name in _CHOICES and isinstance(value, str):
        return ENUM_LABELS.get(value) or value.replace("_", " ").capitalize()
    return setting_words(value)


_CHOICES = {
    name
    for name, field in TrainConfig.model_fields.items()
    if any(
        isinstance(kind, type) and issubclass(kind, StrEnum)
        for kind in (field.annotation, *get_args(field.annotation))
    )
}


def setting_words(value: object) -> str:
    """A value of any kind as text for users."""
    if value is None or value in ("", [], {}):
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {setting_words(item)}" for key, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "\n".join(setting_words(item) for item in value)
    return ENUM_LABELS.get(str(value), str(value))


def config_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """The settings that differ, in the order of the form."""
    found = []
    for name in setting_names(a, b):
        one, two = setting_value(a, name), setting_value(b, name)
        if one != two:
            words = value_words(name, one), value_words(name, two)
            found.append(Difference(name, setting_label(name), one, two, *words))
    return found
