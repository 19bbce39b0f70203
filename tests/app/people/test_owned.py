"""What a person's sessions find, change and make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Session, SQLModel, col, select

import app.registry.tables.all  # noqa: F401
from app.registry import migrate
from app.registry.actor import Principal, Role, Visibility, acting_as, making_for
from app.registry.datasets.used_datasets import used_datasets
from app.registry.db import Database, make_engine
from app.registry.errors import Forbidden
from app.registry.job_kinds.kinds import JobKind
from app.registry.runs.pinned_images import pinned_images
from app.registry.tables import owned
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Dataset, DatasetVersion, Image
from app.registry.tables.jobs import IoJob
from app.registry.tables.owned import everything, product_visibility, source_of
from app.registry.tables.people import Share, User
from app.registry.tables.renders import Grid, GridCell, Render, RenderAdapter
from app.registry.tables.runs import Run, RunDataset

ADMIN = Principal(1, Role.ADMIN, "Eva")
ANA = Principal(2, Role.MEMBER, "Ana", Visibility.PRIVATE)
BEN = Principal(3, Role.MEMBER, "Ben")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(make_engine(f"sqlite:///{tmp_path}/brushwork.db"))
    migrate.upgrade(database.engine)
    with database.write() as session:
        for principal in (ADMIN, ANA, BEN):
            name = principal.name
            session.add(User(id=principal.user_id, name=name, name_key=name.lower()))
    with acting_as("ana", ANA), database.write() as session:
        session.add(Dataset(slug="secret", name="Secret"))
        session.flush()
        session.add(new_image(1))
        session.add(DatasetVersion(dataset_id=1, fingerprint="f", image_count=0, items=[]))
    with acting_as("eva", ADMIN), database.write() as session:
        session.add(Dataset(slug="open", name="Open"))
        session.add(BaseModel(slug="base", name="Base", source="x"))
    return database


def open_tables() -> set[str]:
    """Tables that everybody reads, though their rows or what they refer to have an owner."""
    return {
        table.name
        for table in SQLModel.metadata.sorted_tables
        if not owned.is_limited(table.name) and ("owner_id" in table.columns or table.foreign_keys)
    }


def test_every_table_of_things_and_of_their_parts_is_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert open_tables() == set()
    for declared in (owned._things, owned._parents):
        for name in sorted(declared):
            with monkeypatch.context() as patch:
                patch.delitem(declared, name)
                assert open_tables() == {name}


def new_image(dataset_id: int) -> Image:
    hashes = {"sha256": "a" * 64, "clean_sha256": "b" * 64, "thumbnail_sha256": "c" * 64}
    size = {"width": 1, "height": 1, "size_bytes": 1}
    return Image(dataset_id=dataset_id, filename="x", **hashes, **size)


def seen(database: Database, principal: Principal | None, statement: Any) -> list[Any]:
    with acting_as("test", principal), database.read() as session:
        return [tuple(row) for row in session.exec(statement).all()]


OTHER = aliased(Dataset)
SUBQUERY = sa.select(col(Dataset.id), col(Dataset.name)).subquery()
CTE = sa.select(col(Dataset.name)).cte()
STATEMENTS = {
    "columns": sa.select(col(Dataset.name)),
    "alias": sa.select(OTHER.name),
    "join": sa.select(OTHER.name).join(Image, OTHER.id == col(Image.dataset_id)),
    "join of an alias": sa.select(OTHER.name)
    .select_from(Image)
    .join(OTHER, OTHER.id == col(Image.dataset_id)),
    "outer join": sa.select(OTHER.name).select_from(BaseModel).outerjoin(OTHER, sa.true()),
    "subquery": sa.select(SUBQUERY.c.name),
    "cte": sa.select(CTE.c.name),
    "union": sa.union_all(sa.select(col(Dataset.name)), sa.select(col(Dataset.slug))),
    "part": sa.select(col(Image.filename)),
    "in": sa.select(col(BaseModel.name)).where(sa.exists().where(col(Image.dataset_id) == 1)),
    "count": sa.select(sa.func.count()).select_from(Dataset),
    "bare": sa.select(sa.literal("x")).where((col(Dataset.id) == 1) & (col(Dataset.id) < 2)),
    "bare union": sa.union_all(
        sa.select(sa.literal("x")).where((col(Image.id) == 1) | (col(Image.id) == 3)),
        sa.select(sa.literal("base")).where(col(Share.user_id) == 1),
    ),
    "bare in": sa.select(sa.literal("x")).where(
        sa.exists().where((col(Image.id) == 1) | (col(Image.id) == 3))
    ),
    "scalar": sa.select(sa.select(sa.func.count(col(Image.id))).scalar_subquery()),
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_no_statement_finds_what_a_person_may_not_see(database: Database, statement: Any) -> None:
    without_secret = [
        row
        for row in seen(database, None, statement)
        if row[0] not in ("Secret", "secret", "x", "Base")
    ]
    counted = statement in (STATEMENTS["count"], STATEMENTS["scalar"])
    everything_else = [(row[0] - 1,) for row in without_secret] if counted else without_secret
    found = seen(database, BEN, statement)
    assert sorted(found, key=str) == sorted(everything_else, key=str)
    of_others = [sorted(seen(database, one, statement), key=str) for one in (ANA, ADMIN)]
    assert found != of_others[0] == of_others[1]


def test_a_get_finds_nothing_that_is_hidden(database: Database) -> None:
    with acting_as("test", BEN), database.read() as session:
        assert session.get(Dataset, 1) is None
        assert session.get(Image, 1) is None
        with everything(session):
            assert session.get(Image, 1) is not None


def test_updates_and_deletions_leave_what_is_hidden(database: Database) -> None:
    no_sync = {"synchronize_session": False}
    with acting_as("test", BEN), database.write() as session:
        session.exec(sa.update(Dataset).values(name="Taken"), execution_options=no_sync)
        session.exec(sa.delete(Image), execution_options=no_sync)
    assert seen(database, None, STATEMENTS["columns"]) == [("Secret",), ("Taken",)]
    assert seen(database, None, STATEMENTS["part"]) == [("x",)]


def test_a_shared_thing_is_seen_and_changed_as_far_as_that(database: Database) -> None:
    for may_edit in (False, True):
        with database.write() as session:
            session.merge(Share(kind="dataset", thing_id=1, user_id=3, may_edit=may_edit))
        if not may_edit:
            with pytest.raises(Forbidden, match="Only Ana or an administrator may change this"):
                rename(database, BEN, 1)
    rename(database, BEN, 1)
    assert ("Renamed",) in seen(database, BEN, STATEMENTS["columns"])


def rename(database: Database, principal: Principal, dataset_id: int) -> None:
    with acting_as("test", principal), database.write() as session:
        session.get_one(Dataset, dataset_id).name = "Renamed"


def add_image(session: Session) -> None:
    session.add(new_image(2))


def delete(session: Session) -> None:
    session.get_one(Dataset, 2).deleted_at = sa.func.now()  # type: ignore[assignment]


@pytest.mark.parametrize("change", [add_image, delete])
@pytest.mark.parametrize("visibility", ["studio", "studio_edit"])
def test_a_change_of_what_others_made_is_refused(
    database: Database, change: Callable[[Session], None], visibility: str
) -> None:
    with database.write() as session:
        session.get_one(Dataset, 2).visibility = visibility
    if change is add_image and visibility == "studio_edit":
        with acting_as("test", BEN), database.write() as session:
            change(session)
        return
    act = "change" if change is add_image else "delete or share"
    with (
        pytest.raises(Forbidden, match=f"Only Eva or an administrator may {act} this dataset"),
        acting_as("test", BEN),
        database.write() as session,
    ):
        change(session)


def new_run(**values: Any) -> Run:
    given = {"dataset_id": 2, "dataset_version_id": 1, "base_model_id": 1} | values
    return Run(name="r", config={}, total_steps=1, **given)


def test_what_is_made_from_a_private_thing_is_private(database: Database) -> None:
    ana = Principal(2, Role.MEMBER, "Ana")
    with acting_as("test", ana), database.write() as session:
        session.add(DatasetVersion(dataset_id=2, fingerprint="g", image_count=0, items=[]))
        session.flush()
        runs = [new_run(dataset_version_id=2) for _ in range(2)]
        runs.append(new_run(dataset_id=1))
        runs.append(new_run(regularization_version_id=1))
        session.add_all(runs)
        session.flush()
        assert [run.visibility for run in runs] == ["studio", "studio", "private", "private"]
        further = RunDataset(run_id=runs[0].key, place=2, dataset_id=1, dataset_version_id=1)
        session.add(further)
        session.flush()
        assert runs[0].visibility == "private"
        assert {run.owner_id for run in runs} == {2}


def test_images_and_grids_with_a_private_adapter_are_private(database: Database) -> None:
    with acting_as("test", ANA), database.write() as session:
        adapter = Adapter(slug="a", name="A", base_family="sd1")
        session.add(adapter)
        session.flush()
        version = AdapterVersion(
            adapter_id=adapter.key, version=1, sha256="d" * 64, size_bytes=1, rank=1, alpha=1
        )
        session.add(version)
    with acting_as("test", Principal(2, Role.MEMBER)), database.write() as session:
        render = Render(
            base_model_id=1, prompt="p", seed=1, steps=1, guidance=1, width=8, height=8,
            cache_key="k", adapters=[{"adapter_id": 1, "version_id": 1}],
        )  # fmt: skip
        grid = Grid(title="g", request={}, axes=[])
        merged = IoJob(kind=JobKind.MERGE_ADAPTERS, args={"adapters": [{"version_id": 1}]})
        resized = IoJob(kind=JobKind.RESIZE_ADAPTER, subject_id=1, args={})
        session.add_all([render, grid, merged, resized])
        session.flush()
        session.add(RenderAdapter(render_id=render.key, adapter_id=1))
        session.add(GridCell(grid_id=grid.key, place=0, render_id=render.key, cache_key="k"))
        session.flush()
        made = [thing.visibility for thing in (render, grid, merged)]
        assert made == ["private"] * 3
        assert product_visibility(session, resized) == Visibility.PRIVATE
    assert seen(database, BEN, sa.select(col(IoJob.id))) == []
    assert len(seen(database, ANA, sa.select(col(IoJob.id)))) == 2


def test_workers_make_things_for_the_owner_of_their_job(database: Database) -> None:
    with making_for(3, "private"), database.write() as session:
        session.add(Dataset(slug="made", name="Made"))
    with database.read() as session:
        made = session.exec(select(Dataset).where(Dataset.slug == "made")).one()
        assert (made.owner_id, made.visibility) == (3, "private")


def test_things_made_without_accounts_belong_to_the_first_person(database: Database) -> None:
    with database.write() as session:
        session.add(Dataset(slug="made", name="Made"))
    with database.read() as session:
        made = session.exec(select(Dataset).where(Dataset.slug == "made")).one()
        assert (made.owner_id, made.visibility) == (1, "studio")


def test_what_became_private_is_a_source_without_a_name(database: Database) -> None:
    with database.write() as session:
        session.add(new_run(dataset_id=1))
        adapter = Adapter(slug="lino", name="Lino", base_family="sd1", owner_id=2)
        adapter.visibility = "private"
        session.add(adapter)
        session.flush()
        shown = Adapter(slug="b", name="B", base_family="sd1", owner_id=3)
        render = Render(
            base_model_id=1, prompt="p", seed=1, steps=1, guidance=1, width=8, height=8,
            cache_key="k", owner_id=3,
            adapters=[{"adapter_id": adapter.id, "version_id": 1, "name": "Lino", "slug": "lino"}],
        )  # fmt: skip
        session.add_all([shown, render])
        session.flush()
        version = AdapterVersion(
            adapter_id=shown.key, version=1, sha256="d" * 64, size_bytes=1, rank=1, alpha=1,
            dataset_version_id=1, details={"dataset": "Secret", "datasets": [
                {"version": 1, "name": "Secret", "images": 1, "repeats": 2}]},
        )  # fmt: skip
        session.add(version)
    with acting_as("test", BEN), database.write() as session:
        run = session.get_one(Run, 1)
        (used,) = used_datasets(session, run)
        assert (used.name, used.slug, used.image_count) == ("private", "", 0)
        assert source_of(session, Dataset, 1).name == "private"
        assert "is private now" in pinned_images(session, run).note
        assert source_of(session, BaseModel, 1).name == "Base"
        assert not source_of(session, DatasetVersion, 1).is_kept
        assert "Lino" not in str(session.get_one(Render, render.id).model_dump())
        found = session.get_one(AdapterVersion, version.id)
        assert "Secret" not in str(found.model_dump())
    with acting_as("test", ANA), database.read() as session:
        assert used_datasets(session, session.get_one(Run, 1))[0].name == "Secret"
        found = session.get_one(AdapterVersion, version.id)
        assert found.details["datasets"][0]["name"] == "Secret"
        assert session.get_one(Render, render.id).adapters[0]["name"] == "Lino"


def test_a_row_that_a_check_looked_up_is_not_found_later(database: Database) -> None:
    with acting_as("test", BEN), database.write() as session:
        session.add(new_run(dataset_id=1))
        session.flush()
        assert session.get(Dataset, 1) is None
