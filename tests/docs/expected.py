"""The tables of the documents, as the code has them."""

from __future__ import annotations

from worker.core.training.command_line.settings import Setting, settings
from worker.core.training.config import Group, TrainConfig
from worker.core.training.presets import Preset, preset_config

USUAL_IMAGES = 24
NATIVE_SIDES = (128, 512, 1_024)


def setting_rows(group: Group) -> list[tuple[str, ...]]:
    """A row for each training setting of a group: label, flag, default, values, meaning."""
    return [setting_row(setting) for setting in settings() if setting.group is group]


def setting_row(setting: Setting) -> tuple[str, ...]:
    """The label on the form, the flag, the default, the accepted values and the meaning."""
    field = TrainConfig.model_fields[setting.name]
    default = setting.help.rpartition("default: ")[2].removesuffix(")")
    values = "on or off" if setting.kind == "boolean" else setting.requirement
    return (field.title or "", f"`{setting.flag}`", default, values, setting.hint)


def preset_rows() -> list[tuple[str, ...]]:
    """A row for each preset and native resolution, for a dataset of 24 images."""
    found = []
    for side in NATIVE_SIDES:
        for preset in Preset:
            config = preset_config(preset, resolution=side, images=USUAL_IMAGES)
            found.append(
                (
                    f"{side} px",
                    f"`{preset}`",
                    f"{config.steps:,}",
                    str(config.batch_size),
                    str(config.rank),
                    f"{config.learning_rate:g}",
                    config.targets.value,
                )
            )
    return found
