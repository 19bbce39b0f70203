"""Caption models are checked, offered as providers, and kept while captions need them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import Session

from app.registry.added_models import service as added_models
from app.registry.caption_models import service
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.config import Settings
from app.registry.datasets.auto_caption import orders, providers
from app.registry.db import Database
from app.registry.errors import Conflict, InvalidInput
from app.registry.job_kinds.caption_kinds import CaptionArgs, CaptionImagesArgs
from app.registry.jobs import service as jobs
from app.registry.tables.added_models import CaptionModel
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import IoJob
from tests.app.added_models.kinds import REPO, make_folder
from tests.app.datasets.test_service import filled
from worker.core.captioning.local.inspect import CaptionModelInfo
from worker.core.captioning.words import CaptionFamily, ProviderKind

INFO = CaptionModelInfo(CaptionFamily.FLORENCE2, 5_000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path, "My Florence")


def ready(session: Session, folder: Path, settings: Settings) -> CaptionModel:
    model = added_models.add(session, CAPTION_MODELS, str(folder), settings)
    added_models.write_ready(session, CAPTION_MODELS, model.key, INFO)
    return model


def test_a_check_writes_what_the_folder_holds(
    database: Database, settings: Settings, folder: Path
) -> None:
    with database.write() as session:
        model = ready(session, folder, settings)
        assert (model.status, model.family_label, model.size_bytes) == (
            "ready",
            "Florence-2",
            5_000,
        )
        added_models.write_ready(session, CAPTION_MODELS, 9, INFO)  # removed meanwhile
        assert added_models.list_models(session, CAPTION_MODELS) == [model]


def test_a_ready_model_is_a_provider_and_another_says_why_not(
    database: Database, settings: Settings, folder: Path
) -> None:
    with database.write() as session:
        model = ready(session, folder, settings)
        other = added_models.add(session, CAPTION_MODELS, REPO, settings)
        offered = providers.list_providers(session, settings)
        assert [one.value for one in offered[1:4]] == ["filename", "local-1", "local-2"]
        assert (offered[2].name, offered[2].problem, offered[2].takes_prompt) == (
            "My Florence",
            "",
            False,
        )
        assert offered[2].hint.startswith("Florence-2 on this machine")
        assert "is being downloaded" in offered[3].problem

        def ask(model_id: int | None = None, reference: str = "") -> tuple[int | None, str]:
            asked = CaptionArgs(provider=ProviderKind.LOCAL, model_id=model_id, model=reference)
            args = providers.check_request(session, settings, asked)
            return args.model_id, args.model

        expected = (model.key, str(folder))
        assert ask(model.key) == ask(None, "my-florence") == ask(None, str(folder)) == expected
        assert ask(model.key, str(folder)) == expected
        for model_id, reference, sentence in (
            (other.key, "", "is being downloaded"),
            (99, "", "was removed"),
            (model.key, "/another/folder", "was removed"),  # its number was given again
            (None, "blip", "Choose one of: my-florence, florence-2-base"),
        ):
            with pytest.raises(InvalidInput, match=sentence) as refused:
                ask(model_id, reference)
            assert set(refused.value.fields) == {"provider"}
        folder.rmdir()
        with pytest.raises(InvalidInput, match="Put them back"):
            ask(model.key)


def test_a_model_that_captions_wait_for_stays_and_its_proposals_outlive_it(
    database: Database, settings: Settings, folder: Path
) -> None:
    key = filled(database, None)
    with database.write() as session:
        model = ready(session, folder, settings)
        dataset = session.get_one(Dataset, key)
        asked = CaptionArgs(provider=ProviderKind.LOCAL, model_id=model.key)
        job = orders.order_captions(session, dataset, asked, settings)
        assert job.arguments(CaptionImagesArgs).model == str(folder)
        for refused in (service.remove, service.check_again):
            with pytest.raises(Conflict, match="used by captions that are being written"):
                refused(session, model.key, settings)
        orders.cancel_order(session, key, job.key)
        service.remove(session, model.key, settings)
        session.flush()
        with pytest.raises(InvalidInput, match="was removed"):
            orders.continue_order(session, dataset, job.key, settings)
        assert orders.newest_order(session, key) is not None
        assert jobs.has_waiting(session, IoJob)  # only the check of the model
