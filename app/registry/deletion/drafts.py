"""Deletes the old drafts of the playground for good; orders the job that does."""

from __future__ import annotations

from datetime import timedelta

from sqlmodel import Session

from app.registry.blobs.deletion import Deletion
from app.registry.db import database_now
from app.registry.deletion.renders import delete_renders, ended_renders
from app.registry.job_kinds.kinds import DeleteDraftsArgs, JobKind
from app.registry.jobs import service as jobs
from app.registry.renders import sources

DRAFTS_KEPT = timedelta(hours=1)
DELETED_AT_ONCE = 1_000  # few enough for the time limit of the job; the next one goes on
DELETE_PRIORITY = 50  # after what people wait for


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
