"""The panel of the playground for the image to start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.registry.base_models import service as base_models
from app.registry.db import Session
from app.registry.errors import InvalidInput, NotFound
from app.registry.renders import service, sources
from app.registry.renders.sources import FoundSource, SourceImage
from app.web.playground.forms import PlayForm
from worker.core.inference.config import DEFAULT_STRENGTH


@dataclass(frozen=True)
class SourcePanel:
    """The image to start from, None if there is none; `problem`: why not.

    `strength` as typed, `strength_problem`: why it cannot be used.
    """

    found: FoundSource | None
    problem: str
    strength: str
    strength_problem: str

    @property
    def slider(self) -> str:
        """The place of the slider."""
        return self.strength.replace(",", ".")


def source_panel(session: Session, form: PlayForm, errors: Mapping[str, str]) -> SourcePanel:
    """The panel for a form."""
    found, problem = None, errors.get("source", "")
    if form.source:
        try:
            found = sources.find_source(session, SourceImage.parse(form.source))
        except (InvalidInput, NotFound):
            problem = problem or sources.SOURCE_MISSING
    strength = form.strength or f"{DEFAULT_STRENGTH:g}"
    return SourcePanel(found, problem, strength, errors.get("strength", ""))


def with_base_of_source(session: Session, form: PlayForm) -> PlayForm:
    """The form with the base model of the render that it starts from, unless it names one."""
    if form.base or form.stack or not form.source:
        return form
    try:
        named = SourceImage.parse(form.source)
        if named.render_id is None:
            return form
        render = service.get_render(session, named.render_id)
    except (InvalidInput, NotFound):
        return form
    base = base_models.base_of(session, render.base_model_id)
    return form if base.is_retired else replace(form, base=base.slug)
