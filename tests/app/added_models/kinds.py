"""Both kinds of models that people add, for tests of what they share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlmodel import Session, col, select

from app.registry.added_models import service
from app.registry.added_models.service import ListedModel, ModelKind
from app.registry.base_models.service import BASE_MODELS
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.tables.added_models import AddedModel, ModelStatus
from app.registry.tables.jobs import IoJob

KINDS = (BASE_MODELS, CAPTION_MODELS)
both_kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
MEGABYTE = "x" * 1_000_000
REPO = "florence-community/Florence-2-base"


@dataclass(frozen=True)
class Models:
    """The models of a kind in a session; the embedded base model is not among them."""

    session: Session
    kind: ModelKind

    def rows(self) -> list[ListedModel]:
        models = [
            model
            for model in service.list_models(self.session, self.kind)
            if model.source != "starter"
        ]
        return service.list_with_progress(self.session, self.kind, models)

    def row(self) -> ListedModel:
        (row,) = self.rows()
        return row

    def newest_job(self) -> IoJob:
        job = self.session.exec(select(IoJob).order_by(col(IoJob.id).desc())).first()
        assert job is not None
        return job

    def fail(self, model: AddedModel, sentence: str) -> None:
        """An io worker has found that it cannot be used."""
        service.write_unusable(self.session, self.kind, model.key, sentence)

    def make_ready(self, model: AddedModel) -> None:
        """An io worker has checked it."""
        model.status, model.error, model.family = ModelStatus.READY, None, "sd1"
        self.session.add(model)


def make_folder(folder: Path, name: str = "My Model") -> Path:
    """A folder to add; its content is for the io worker to check."""
    path = folder / name
    path.mkdir()
    return path
