"""Blind tests: start, find, end, go on judging, use the winner, delete."""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.adapters.service import use_version
from app.registry.adapters.usual_weight import set_usual_weight
from app.registry.blind_tests.plan import BlindPlan
from app.registry.db import utcnow
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.paging import Page, read_rows
from app.registry.renders.grids import service as grids
from app.registry.renders.grids.axes import weight_text
from app.registry.renders.grids.plan import GridPlan
from app.registry.runs.checkpoints import use_checkpoint
from app.registry.storage.store import BlobStore
from app.registry.tables.blind_tests import BlindTest, BlindVote

TESTS_A_PAGE = 24
ENDED = "This blind test has ended. Go on judging to answer more pairs."
NOT_ENDED = "This blind test has not ended yet. End it to see who is who."


def start(session: Session, plan: BlindPlan, store: BlobStore) -> BlindTest:
    """Store a planned test and queue the images that are not there yet."""
    test = plan.test
    session.add(test)
    session.flush()
    for column, planned in plan.grids.items():
        grid = grids.create_grid(session, planned, store)
        grid.blind_test_id = test.key
        setattr(test, column, grid.key)
        session.add(grid)
    session.add(test)
    session.flush()
    return test


def get_blind_test(session: Session, test_id: int, *, lock: bool = False) -> BlindTest:
    """Look up a test, also a deleted one; with `lock` nobody else changes it. Raises NotFound."""
    test = session.get(BlindTest, test_id, with_for_update=lock)
    if test is None:
        raise NotFound("There is no such blind test; it may have been deleted for good.")
    return test


def require_ended(test: BlindTest) -> None:
    """Raises Conflict while a test is judged."""
    if test.ended_at is None:
        raise Conflict(NOT_ENDED)


def require_open(test: BlindTest) -> None:
    """Raises Conflict for a test that was deleted or has ended."""
    if test.deleted_at is not None:
        raise Conflict("This blind test was deleted. Restore it to go on.")
    if test.ended_at is not None:
        raise Conflict(ENDED)


def list_blind_tests(
    session: Session,
    *,
    run_id: int | None = None,
    adapter_id: int | None = None,
    size: int = TESTS_A_PAGE,
    number: int = 1,
    before: int | None = None,
) -> Page[BlindTest]:
    """Tests, newest first, of a run or of an adapter; `before`: only those with a lower id."""
    conditions: list[sa.ColumnElement[bool]] = [col(BlindTest.deleted_at).is_(None)]
    if run_id is not None:
        conditions.append(col(BlindTest.run_id) == run_id)
    if adapter_id is not None:
        conditions.append(col(BlindTest.adapter_id) == adapter_id)
    return read_rows(session, BlindTest, *conditions, size=size, number=number, before=before)


def all_votes(session: Session, test_id: int) -> list[BlindVote]:
    """The pairs that all judges were shown, in the order in which they were handed out."""
    query = select(BlindVote).where(BlindVote.test_id == test_id)
    return list(session.exec(query.order_by(col(BlindVote.id))))


def pair_of(session: Session, test_id: int, judge: str, number: int) -> BlindVote:
    """A pair that a judge was shown. Raises Conflict."""
    query = select(BlindVote).where(BlindVote.test_id == test_id, BlindVote.judge == judge)
    found = session.exec(query.where(BlindVote.number == number)).first()
    if found is None:
        raise Conflict(f"Pair {number:,} was not shown to you yet. Get the next pair first.")
    return found


def end(session: Session, test_id: int) -> BlindTest:
    """End a test and cancel the images that are still to come; idempotent."""
    test = get_blind_test(session, test_id, lock=True)
    if test.ended_at is None:
        test.ended_at = utcnow()
        session.add(test)
        for vote in all_votes(session, test_id):
            if vote.answer is None:
                session.delete(vote)
        session.flush()
    _cancel_images(session, test)
    return test


def _cancel_images(session: Session, test: BlindTest) -> None:
    for grid_id in filter(None, (test.grid_id, test.control_grid_id)):
        with suppress(Conflict, NotFound):  # all of them are there
            grids.cancel_grid(session, grid_id)


def plan_missing(session: Session, test_id: int) -> dict[int, GridPlan]:
    """The images that a test lacks, by grid, as far as they can be drawn."""
    test, found = get_blind_test(session, test_id), {}
    for key in filter(None, (test.control_grid_id, test.grid_id)):
        with suppress(InvalidInput):  # a candidate or the base model is gone
            if (plan := grids.plan_missing(session, key)) is not None:
                found[key] = plan
    return found


def go_on(
    session: Session, test_id: int, missing: dict[int, GridPlan], store: BlobStore
) -> BlindTest:
    """Open a test that has ended, and draw what is missing, as `plan_missing` planned it.

    Raises Conflict for a deleted test.
    """
    test = get_blind_test(session, test_id, lock=True)
    if test.deleted_at is not None:
        require_open(test)
    test.ended_at = None
    session.add(test)
    for grid_id, plan in missing.items():
        grids.continue_grid(session, grid_id, plan, store)
    return test


def use_candidate(session: Session, test_id: int, number: int) -> str:
    """Put a candidate of a test that has ended into use, from 0, at the weight it had; in words.

    A checkpoint becomes a version first. Raises Conflict while the test is judged and for what is
    not one version, and NotFound if that was deleted.
    """
    test = get_blind_test(session, test_id)
    require_ended(test)
    if not 0 <= number < len(test.candidates):
        raise NotFound("This blind test has no such candidate.")
    label, named = test.labels[number], test.candidates[number]
    if "version" not in named:
        raise Conflict(f"“{label}” is not a version of one adapter, so it cannot be put into use.")
    adapter = adapters.get_adapter(session, named["adapter_id"])
    if adapter.is_listed or adapter.run_id is None:
        used = use_version(session, adapter.key, named["version"])
    else:
        used = use_checkpoint(session, adapter.run_id, named["version"])
    told = f"Version {used.version.version} of “{used.adapter.name}” is in use now"
    if named["weight"] != used.version.usual_weight:
        set_usual_weight(session, used.adapter.key, used.version.version, named["weight"])
        told += f", at the usual weight {weight_text(named['weight'])}"
    return f"{told}."


def delete_blind_test(session: Session, test_id: int) -> BlindTest:
    """Delete a test and cancel its images; it can be restored. Idempotent."""
    test = get_blind_test(session, test_id, lock=True)
    if test.deleted_at is None:
        _cancel_images(session, test)
        test.deleted_at = utcnow()
        session.add(test)
        session.flush()
    return test
