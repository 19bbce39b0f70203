"""Rows with slugs of their own, also where two requests add the same at one moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlmodel import select

from app.registry import slugs
from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.caption_models import service as caption_models
from app.registry.config import Settings
from app.registry.datasets import service as datasets
from app.registry.db import Database, Session
from app.registry.errors import Conflict
from app.registry.tables.added_models import BaseModel, CaptionModel
from app.registry.tables.datasets import Dataset

Add = Callable[[Session, Path, Settings], object]


def add_base(session: Session, folder: Path, _: Settings) -> object:
    return added_models.add_path(session, base_models.BASE_MODELS, str(folder))


def add_captioner(session: Session, folder: Path, settings: Settings) -> object:
    return added_models.add(session, caption_models.CAPTION_MODELS, str(folder), settings)


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests choose their slug at the same moment, unless one waits for the other."""
    both = threading.Barrier(2)
    choose = slugs.unique_slug

    def choose_together(*given: object, **named: object) -> str:
        slug = choose(*given, **named)  # type: ignore[arg-type]
        try:
            both.wait(1)
        except threading.BrokenBarrierError:  # SQLite has one writer at a time
            both.reset()
        return slug

    monkeypatch.setattr(slugs, "unique_slug", choose_together)


def at_once(database: Database, add: Add, folders: list[Path], settings: Settings) -> list[str]:
    """The outcome of adding these at the same moment."""

    def run(folder: Path) -> str:
        try:
            with database.write() as session:
                add(session, folder, settings)
        except Conflict as refused:
            return refused.detail
        return ""

    with ThreadPoolExecutor(2) as pool:
        return sorted(pool.map(run, folders))


@pytest.mark.usefixtures("meeting")
@pytest.mark.parametrize(("add", "table"), [(add_base, BaseModel), (add_captioner, CaptionModel)])
def test_the_same_model_added_twice_at_once_is_one_row(
    database: Database, tmp_path: Path, add: Add, table: type[BaseModel] | type[CaptionModel]
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")
    folder = tmp_path / "Mine"
    folder.mkdir()
    added, refused = at_once(database, add, [folder, folder], settings)
    assert (added, "already been added as “Mine”" in refused) == ("", True)
    with database.read() as session:
        assert [row.slug for row in session.exec(select(table))] == ["mine"]


@pytest.mark.usefixtures("meeting")
def test_two_datasets_of_one_name_made_at_once_get_slugs_of_their_own(
    database: Database, tmp_path: Path
) -> None:
    def add(session: Session, folder: Path, _: Settings) -> object:
        return datasets.create_dataset(session, folder.name, trigger_word="ink")

    settings = Settings(_env_file=None, data_dir=tmp_path / "data")
    assert at_once(database, add, [tmp_path / "Ink", tmp_path / "Ink"], settings) == ["", ""]
    with database.read() as session:
        assert {row.slug for row in session.exec(select(Dataset))} == {"ink", "ink-2"}


def test_a_name_that_others_take_again_and_again_is_refused_in_words(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        datasets.create_dataset(session, "Ink")
        monkeypatch.setattr(slugs, "unique_slug", lambda *_, **__: "ink")
        with pytest.raises(Conflict, match="Others are adding “Ink” at this moment"):
            datasets.create_dataset(session, "Ink")


@pytest.mark.usefixtures("meeting")
def test_two_models_of_one_name_added_at_once_get_slugs_of_their_own(
    database: Database, tmp_path: Path
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "data")
    folders = [tmp_path / "a" / "Mine", tmp_path / "b" / "Mine"]
    for folder in folders:
        folder.mkdir(parents=True)
    assert at_once(database, add_captioner, folders, settings) == ["", ""]
    with database.read() as session:
        assert {row.slug for row in session.exec(select(CaptionModel))} == {"mine", "mine-2"}
