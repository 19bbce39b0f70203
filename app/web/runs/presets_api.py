"""REST: presets, those that are shipped and those that somebody saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field, model_validator

from app.registry.runs import own_presets, presets
from app.registry.slugs import RowId
from app.registry.validation import Name
from app.web.access.needs import Action, Router
from app.web.answers import OwnedAnswer, whose_of
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import Id, Reading, Writing
from worker.core.training.presets import Preset

router = Router()
NO_PRESET = problems({404: "There is no such preset."})


class PresetOut(OwnedAnswer):
    """A preset: a shipped one, or one of your own, which changes a shipped one."""

    address: ClassVar[str] = "/api/v1/presets/{id}"
    id: int | None = Field(description="`preset` of a run accepts it; null for a shipped one.")
    name: str = Field(description="Its name on the form.")
    preset: Preset = Field(description="The shipped preset.")
    config: dict[str, Any] = Field(description="The settings that differ from it.")
    base_family: str | None = Field(description="The family of the base it was saved for.")
    resolution: int | None = Field(description="The native size of that base, in pixels.")


class PresetIn(BaseModel):
    """A preset to save: the settings of a run, or changes to a shipped preset."""

    model_config = example(name="Soft", preset="balanced", config={"rank": 8})
    name: Name = Field(description="Its name.")
    run_id: RowId | None = Field(None, description="Save what this run changed.")
    preset: Preset = Field(Preset.BALANCED, description="The shipped preset; not with `run_id`.")
    config: dict[str, Any] | None = Field(None, description="The changes; not with `run_id`.")

    @model_validator(mode="after")
    def _one_source(self) -> PresetIn:
        if (self.run_id is None) == (self.config is None):
            raise ValueError("Give either run_id or config.")
        return self


class PresetChange(BaseModel):
    """A new name."""

    model_config = example(name="Very soft")
    name: Name = Field(description="Its name.")


@router.get("/presets", Action.LOOK)
def list_presets(session: Reading, part: Part) -> Sequence[PresetOut]:
    """List the shipped presets, then your own by name."""
    shipped = [
        PresetOut(
            id=None,
            name=title,
            preset=key,
            config={},
            base_family=None,
            resolution=None,
            **whose_of(),
        )
        for key, (title, _) in presets.PRESET_WORDS.items()
    ]
    own = [PresetOut.of(row) for row in own_presets.list_presets(session)]
    return part.of(shipped + own, lambda row: (row.id or 0, row.preset))


@router.post(
    "/presets", Action.CREATE, status_code=201, responses=problems({404: "There is no such run."})
)
def create_preset(body: PresetIn, session: Writing) -> PresetOut:
    """Save a preset of your own.

    Sample prompts are not part of it, because they belong to a dataset.
    """
    if body.run_id is not None:
        return PresetOut.of(own_presets.save_run_as_preset(session, body.run_id, body.name))
    changes = body.config or {}
    return PresetOut.of(own_presets.create_preset(session, body.name, body.preset, changes))


@router.get("/presets/{preset_id}", Action.LOOK, responses=NO_PRESET)
def get_preset(preset_id: Id, session: Reading) -> PresetOut:
    """Get a preset of your own."""
    return PresetOut.of(presets.get_preset(session, preset_id))


@router.patch("/presets/{preset_id}", Action.EDIT, responses=NO_PRESET)
def rename_preset(preset_id: Id, body: PresetChange, session: Writing) -> PresetOut:
    """Rename a preset of your own."""
    return PresetOut.of(own_presets.rename_preset(session, preset_id, body.name))
