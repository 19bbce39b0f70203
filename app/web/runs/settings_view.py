"""The settings of a run on its page: what differs from the preset, all of them, and their JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from app.registry.db import Session
from app.registry.runs.presets import preset_title
from app.registry.runs.settings import Setting, run_settings
from app.registry.tables.runs import Run
from app.web.runs.forms import GROUP_TITLES

OTHER_GROUP = "Of another version of Brushwork"


@dataclass(frozen=True)
class SettingsPanel:
    """All settings of a run in the groups of the form; `preset`: what they are compared with."""

    preset: str
    changed: list[Setting]
    groups: dict[str, list[Setting]]
    count: int
    json: str


def settings_panel(session: Session, run: Run) -> SettingsPanel:
    """The settings of a run, as its page shows them."""
    found = run_settings(session, run)
    groups: dict[str, list[Setting]] = {}
    for setting in found:
        title = GROUP_TITLES[setting.group] if setting.group else OTHER_GROUP
        groups.setdefault(title, []).append(setting)
    return SettingsPanel(
        preset=preset_title(run),
        changed=[setting for setting in found if setting.changed],
        groups=groups,
        count=len(found),
        json=json.dumps(run.config, indent=2, ensure_ascii=False),
    )
