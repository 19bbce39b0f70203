"""REST: the settings of a run, compared with its preset."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from app.registry.runs import service
from app.registry.runs.settings import Setting, run_settings
from app.web.answers import Answer
from app.web.state import Id, State

router = APIRouter()


class RunSettingsOut(Answer):
    """The settings of a run. `config` starts the same training again."""

    preset: str | None = Field(description="The shipped preset it was started with.")
    own_preset: dict[str, Any] | None = Field(
        description="Your own preset on top of it, as it was then: id, name and config."
    )
    config: dict[str, Any] = Field(description="All settings by name.")
    settings: list[Setting] = Field(description="Each setting with the value of the preset.")


@router.get("/runs/{run_id}/settings")
def get_run_settings(run_id: Id, state: State) -> RunSettingsOut:
    """Get all settings of a run, and which of them differ from its preset."""
    with state.database.read() as session:
        run = service.get_run(session, run_id)
        return RunSettingsOut.of(run, settings=run_settings(session, run))
