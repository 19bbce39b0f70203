"""Deletes renders, grids and old drafts of the playground for good, with their images."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, func, select

from app.registry.adapters import mentions
from app.registry.blobs.deletion import Deletion
from app.registry.db import database_now, in_chunks
from app.registry.deletion.lists import deleted_row
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.kinds import DeleteDraftsArgs, JobKind
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.jobs import service as jobs
from app.registry.renders import sources
from app.registry.renders.recipes.service import delete_deleted_recipes
from app.registry.renders.sources import forget_unused
from app.registry.tables.adapters import Adapter
from app.registry.tables.blind_tests import BlindTest, BlindVote
from app.registry.tables.owned import everything
from app.registry.tables.renders import Grid, GridCell, Recipe, Render, RenderAdapter, RenderImage

DRAFTS_KEPT = timedelta(hours=1)
DELETED_AT_ONCE = 1_000  # few enough for the time limit of the job; the next one goes on
DELETE_PRIORITY = 50  # after what people wait for


def is_in_grid() -> ColumnElement[bool]:
    """Condition for renders with an image in a grid, also in a deleted one."""
    return select(1).where(col(GridCell.render_id) == col(Render.id)).exists()


IS_DELETED = col(Grid.deleted_at).is_not(None)


def is_only_in(grids: ColumnElement[bool] = IS_DELETED) -> ColumnElement[bool]:
    """Condition for renders that were made for grids, all of which meet a condition."""

    def in_grids(which: ColumnElement[bool]) -> ColumnElement[bool]:
        return (
            select(1)
            .select_from(GridCell)
            .join(Grid, col(Grid.id) == col(GridCell.grid_id))
            .where(col(GridCell.render_id) == col(Render.id), which)
            .exists()
        )

    made_for_them = col(Render.draft_slot).is_not(None)
    return made_for_them & in_grids(grids) & ~in_grids(~grids)


def forget_renders(session: Session, render_ids: list[int]) -> None:
    """Leave the cells of renders that are deleted for good without an image."""
    change = sa.update(GridCell).where(col(GridCell.render_id).in_(render_ids))
    session.connection().execute(change.values(render_id=None))


def delete_grids(session: Session, grids: ColumnElement[bool] = IS_DELETED) -> int:
    """Delete grids for good, without their images; return how many they were."""
    deleted = session.exec(select(Grid.id).where(grids))
    keys = [key for key in deleted if key is not None]
    for chunk in in_chunks(keys):
        for table, column in ((GridCell, col(GridCell.grid_id)), (Grid, col(Grid.id))):
            session.connection().execute(sa.delete(table).where(column.in_(chunk)))
    session.expire_all()
    return len(keys)


def delete_render(session: Session, render_id: int, *, only_deleted: bool = False) -> Deletion:
    """Delete a render with its images and its twin. Raises Conflict if one has not ended.

    `only_deleted`: also if the render is not deleted yet.
    """
    if only_deleted:
        deleted_row(session, Render, render_id)
    elif session.get(Render, render_id, with_for_update=True) is None:
        raise NotFound("There is no such render; it may have been deleted for good already.")
    return delete_renders(session, [render_id], title=f"render {render_id}")


def delete_renders(session: Session, render_ids: Iterable[int], *, title: str) -> Deletion:
    """Delete renders with their images and their twins. Raises Conflict if one has not ended."""
    keys = set(render_ids)
    twins = _twins_of(session, keys)
    deletion = Deletion(title)
    deletion.count(len(keys - twins), "render")
    deletion.count(len(twins), "image without adapters", "images without adapters")
    sources: set[str] = set()
    for chunk in in_chunks(keys | twins):
        _require_ended(session, chunk)
        of_renders = select(RenderImage.sha256).where(col(RenderImage.render_id).in_(chunk))
        deletion.files.update(session.exec(of_renders))
        used = select(Render.source_sha256).where(col(Render.id).in_(chunk))
        sources.update(filter(None, session.exec(used)))
    mentions.forget_images(session, deletion.files)
    for chunk in in_chunks(keys | twins):
        connection = session.connection()
        pointing = sa.update(Render).where(col(Render.twin_id).in_(chunk))
        connection.execute(pointing.values(twin_id=None))
        for owned in (RenderImage, RenderAdapter):
            connection.execute(sa.delete(owned).where(col(owned.render_id).in_(chunk)))
        forget_renders(session, chunk)
        jobs.forget_texts(session, Render, chunk)
    for chunk in in_chunks(keys | twins):
        session.connection().execute(sa.delete(Render).where(col(Render.id).in_(chunk)))
    for chunk in in_chunks(sources):
        forget_unused(session, among=chunk)
    deletion.files |= sources
    session.expire_all()
    return deletion


def _twins_of(session: Session, keys: set[int]) -> set[int]:
    """The twins of these renders that no other render has as its twin."""
    twins: set[int] = set()
    for chunk in in_chunks(keys):
        of_renders = select(Render.twin_id).where(col(Render.id).in_(chunk))
        twins.update(key for key in session.exec(of_renders) if key is not None)
    others: set[int] = set()
    for chunk in in_chunks(twins):
        having = select(Render.twin_id, Render.id).where(col(Render.twin_id).in_(chunk))
        with everything(session):
            found = session.exec(having).all()
        others.update(twin for twin, key in found if twin and key not in keys)
    return twins - others


def _require_ended(session: Session, keys: list[int]) -> None:
    unfinished = select(Render).where(col(Render.id).in_(keys)).with_for_update()
    for render in session.exec(unfinished):
        if not render.state.is_final:
            raise Conflict(
                f"The images of render {render.key} are still being generated. Cancel it first, "
                "then delete it."
            )


def delete_deleted_renders(session: Session) -> Deletion:
    """Delete all deleted renders, grids and recipes for good."""
    also = col(Render.deleted_at).is_not(None)
    deletion = delete_grids_with_images(
        session, IS_DELETED, also, title="deleted images of the playground"
    )
    deletion.count(delete_deleted_recipes(session), "recipe")
    return deletion


def delete_grid(session: Session, grid_id: int) -> Deletion:
    """Delete a deleted grid, with the images that no other has. Raises Conflict if it is not."""
    grid = deleted_row(session, Grid, grid_id)
    return delete_grids_with_images(session, col(Grid.id) == grid_id, title=f"grid “{grid.title}”")


def delete_grids_with_images(
    session: Session,
    grids: ColumnElement[bool],
    also: ColumnElement[bool] | None = None,
    *,
    title: str,
) -> Deletion:
    """Delete grids with the images of no others, and the renders that meet `also`."""
    of_grids = is_only_in(grids) & col(Render.status).not_in(NOT_FINAL)
    query = select(Render.id).where(of_grids if also is None else of_grids | also)
    with everything(session):  # also the grids of others that show an image
        deleted = session.exec(query).all()
    keys = [key for key in deleted if key is not None]
    deletion = delete_renders(session, keys, title=title)
    deletion.count(delete_grids(session, grids), "grid")
    return deletion


def delete_blind_test(session: Session, test_id: int) -> Deletion:
    """Delete a deleted blind test, with its answers and the images that nothing else has."""
    test = deleted_row(session, BlindTest, test_id)
    title = f"blind test “{test.title}”"
    votes = select(func.count()).where(
        BlindVote.test_id == test_id, col(BlindVote.answer).is_not(None)
    )
    count, files = session.exec(votes).one(), {*test.references, *test.controls}
    deletion = delete_grids_with_images(session, col(Grid.blind_test_id) == test_id, title=title)
    deletion.count(count, "answer")
    deletion.files |= files
    for table, column in ((BlindVote, col(BlindVote.test_id)), (BlindTest, col(BlindTest.id))):
        session.connection().execute(sa.delete(table).where(column == test_id))
    session.expire_all()
    return deletion


def delete_recipe(session: Session, recipe_id: int) -> Deletion:
    """Delete a deleted recipe. Raises Conflict if it is not deleted yet."""
    recipe = deleted_row(session, Recipe, recipe_id)
    deletion = Deletion(f"recipe “{recipe.name}”")
    session.delete(recipe)
    session.flush()
    sources = {recipe.source_sha256} if recipe.source_sha256 else set()
    forget_unused(session, among=sources)
    deletion.files |= sources
    return deletion


def delete_ended_renders(
    session: Session, *, before: datetime | None = None, keep_covers: bool = True
) -> Deletion:
    """Delete the renders of `ended_renders`."""
    keys = ended_renders(session, before=before, keep_covers=keep_covers)
    return delete_renders(session, keys, title="renders of the playground")


def ended_renders(
    session: Session,
    *,
    before: datetime | None = None,
    keep_covers: bool = True,
    only_drafts: bool = False,
) -> list[int]:
    """The ids of renders that have ended, oldest first; twins go with their renders.

    Those with an image in a grid are left out: they stay as long as the grid does. The images of
    a tool's result are no `only_drafts`.
    `before`: only those that ended earlier. `keep_covers`: not those with the cover of an adapter.
    """
    of_twin = aliased(Render)
    unfinished_twin = (
        select(1)
        .where(col(of_twin.id) == col(Render.twin_id), col(of_twin.status).in_(NOT_FINAL))
        .exists()
    )
    query = select(Render.id).where(
        col(Render.status).not_in(NOT_FINAL), ~unfinished_twin, ~is_in_grid()
    )
    if only_drafts:
        of_tool = col(Render.draft_slot).startswith("tool:")
        query = query.where(col(Render.draft_slot).is_not(None), ~of_tool)
    if before is not None:
        query = query.where(col(Render.finished_at) < before)
    if keep_covers:
        covers = select(col(Adapter.cover_sha256)).where(col(Adapter.cover_sha256).is_not(None))
        shown = select(RenderImage.render_id).where(col(RenderImage.sha256).in_(covers))
        query = query.where(
            col(Render.id).not_in(shown),
            col(Render.id).not_in(
                select(col(of_twin.twin_id)).where(
                    col(of_twin.twin_id).is_not(None), col(of_twin.id).in_(shown)
                )
            ),
        )
    is_twin_of_unfinished = (
        select(1)
        .where(col(of_twin.twin_id) == col(Render.id), col(of_twin.status).in_(NOT_FINAL))
        .exists()
    )
    query = query.where(~is_twin_of_unfinished)
    return [key for key in session.exec(query.order_by(col(Render.id))) if key is not None]


def delete_old_drafts(session: Session) -> Deletion:
    """Delete drafts that ended an hour ago, the oldest first, at most DELETED_AT_ONCE.

    Those that are the cover of an adapter stay. Images to start from that no render uses are
    deleted with them.
    """
    before = database_now(session) - DRAFTS_KEPT
    keys = ended_renders(session, before=before, only_drafts=True)
    title = "drafts of the playground"
    deletion = delete_renders(session, keys[:DELETED_AT_ONCE], title=title)
    forgotten = sources.forget_unused(session)
    deletion.count(len(forgotten), "unused image to start from", "unused images to start from")
    deletion.files.update(forgotten)
    return deletion


def is_due(session: Session) -> bool:
    """True if a draft or an unused source is to be deleted, and no job does that."""
    if jobs.was_ordered(session, JobKind.DELETE_DRAFTS):
        return False
    before = database_now(session) - DRAFTS_KEPT
    drafts = ended_renders(session, before=before, only_drafts=True)
    return bool(drafts) or sources.has_unused(session)


order_if_due = jobs.orders_if_due(is_due, DeleteDraftsArgs(), priority=DELETE_PRIORITY)
