"""Proposed captions change nothing until a person applies them, and then in one step."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.datasets import service
from app.registry.datasets.auto_caption import proposals
from app.registry.datasets.edits import steps
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    caption_history,
    change_caption,
)
from app.registry.datasets.several_captions import captions_of_kinds
from app.registry.db import Database
from app.registry.deletion import datasets as deletion
from app.registry.job_kinds.caption_kinds import CaptionImagesArgs
from app.registry.tables.datasets import (
    CaptionProposal,
    CaptionRevision,
    DatasetEdit,
    ImageCaption,
    ProposalState,
)
from app.registry.tables.jobs import IoJob
from app.web.datasets.auto_caption import view
from tests.app.datasets.test_service import filled
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.words import CaptionKind


def propose(
    session: Session,
    key: int,
    *captions: str,
    mode: CaptionMode = CaptionMode.FILL,
    kind: CaptionKind = CaptionKind.LONG,
) -> list[CaptionProposal]:
    """Proposals for the first images of a dataset."""
    args = CaptionImagesArgs(provider=ProviderKind.BUILTIN, image_ids=()).stored()
    job = IoJob(kind="caption_images", subject_id=key, args=args, status="succeeded")
    session.add(job)
    session.flush()
    rows = []
    images = service.list_images(session, key)
    now = captions_of_kinds(session, [(image, kind) for image in images])
    for image, caption, before in zip(images, captions, now, strict=False):
        row = CaptionProposal(
            job_id=job.key,
            image_id=image.key,
            kind=kind,
            mode=mode,
            caption=caption,
            source_name="Ollama llava",
            seen_version=before.version,
        )
        proposals.store_proposals(session, [row])
        rows.append(row)
    return rows


def captions_of(session: Session, key: int) -> list[str]:
    return [image.caption for image in service.list_images(session, key)]


def test_proposals_are_applied_in_one_step_that_says_who_wrote_them(database: Database) -> None:
    key = filled(database, None, None)
    with database.write() as session:
        propose(session, key, "a fox", "an owl")
        assert captions_of(session, key) == ["", ""]
        assert proposals.count_proposed(session, key) == 2
        applied = proposals.apply_proposals(session, key)
        assert captions_of(session, key) == ["a fox", "an owl"]
        assert proposals.count_proposed(session, key) == 0
        edit = session.exec(select(DatasetEdit)).one()
        assert (applied.changed, applied.edit_id) == (2, edit.key)
        assert (edit.changed, edit.before[0]["before"]) == (2, {"caption": ""})
        revisions = session.exec(select(CaptionRevision)).all()
        assert {(r.source, r.source_name, r.edit_id) for r in revisions} == {
            ("provider", "Ollama llava", edit.key)
        }


@pytest.mark.parametrize(
    ("mode", "after"),
    [
        (CaptionMode.REPLACE, ["an owl", "an owl"]),
        (CaptionMode.APPEND, ["a fox, an owl", "A fox. an owl"]),
    ],
)
def test_changes_are_shown_before_they_are_made(
    database: Database, mode: CaptionMode, after: list[str]
) -> None:
    key = filled(database, "a fox", "A fox.")
    with database.write() as session:
        propose(session, key, "an owl", "an owl", mode=mode)
        shown = proposals.list_proposed(session, key)
        assert [(change.before, change.after) for change in shown] == list(
            zip(["a fox", "A fox."], after, strict=True)
        )
        proposals.apply_proposals(session, key)
        assert captions_of(session, key) == after


@pytest.mark.parametrize("mode", [CaptionMode.APPEND, CaptionMode.REPLACE])
def test_a_caption_that_was_changed_meanwhile_stays_until_it_was_seen(
    database: Database, mode: CaptionMode
) -> None:
    key = filled(database, None, None)
    with database.write() as session:
        propose(session, key, "an owl", "an owl", mode=mode)
        first = service.list_images(session, key)[0]
        service.caption_image(session, first.key, "mine")
        for changed in (1, 0, 0):
            applied = proposals.apply_proposals(session, key)
            assert (applied.changed, applied.changed_meanwhile) == (changed, 1)
            assert captions_of(session, key) == ["mine", "an owl"]
        assert "1 proposal kept: look at the captions as they are now" in applied.sentence
        (again,) = proposals.list_proposed(session, key)
        assert (again.before, again.is_outdated) == ("mine", True)
        seen = {again.proposal.key: again.now.version}
        service.caption_image(session, first.key, "mine again")
        assert proposals.apply_proposals(session, key, seen=seen).changed == 0
        (again,) = proposals.list_proposed(session, key)
        seen = {again.proposal.key: again.now.version}
        shown = again.after
        assert proposals.apply_proposals(session, key, seen=seen).changed == 1
        assert captions_of(session, key)[0] == shown != "mine again"
        assert proposals.apply_proposals(session, key, seen=seen) == proposals.Applied()


@pytest.mark.parametrize("kind", [CaptionKind.LONG, CaptionKind.TAGS])
def test_only_what_is_empty_at_that_moment_is_filled(database: Database, kind: CaptionKind) -> None:
    key = filled(database, *[None] * 3)
    with database.write() as session:
        rows = propose(session, key, "a fox", "an owl", "a cat", kind=kind)
        images = service.list_images(session, key)
        for image, caption in zip(images, ("mine", "mine", "mine"), strict=True):
            change_caption(session, image.key, kind, CaptionChange(caption))
        change_caption(session, images[2].key, kind, CaptionChange(""))
        assert [change.after for change in proposals.list_proposed(session, key)] == ["a cat"]
        assert proposals.count_proposed(session, key) == 1
        applied = proposals.apply_proposals(session, key, seen={rows[0].key: 2, rows[1].key: 9})
        assert (applied.changed, applied.changed_meanwhile, applied.still_proposed) == (1, 2, 0)
        assert [row.state for row in rows] == ["skipped", "skipped", "applied"]
        assert proposals.apply_proposals(session, key) == proposals.Applied()
        now = captions_of_kinds(session, [(image, kind) for image in images])
        assert [one.caption for one in now] == ["mine", "mine", "a cat"]


def test_applied_proposals_are_a_step_that_can_be_undone(database: Database) -> None:
    key = filled(database, "a fox", None)
    with database.write() as session:
        propose(session, key, "an owl", "a cat", mode=CaptionMode.APPEND)
        edit_id = proposals.apply_proposals(session, key).edit_id
        assert edit_id is not None
        (step,) = steps.list_steps(session, key)
        assert (step.sentence, step.can_undo) == ("Wrote 2 captions with “Ollama llava”", True)
        second = service.list_images(session, key)[1]
        service.caption_image(session, second.key, "mine")
        assert steps.undo_edit(session, key, edit_id).changed == 1
        assert captions_of(session, key) == ["a fox", "mine"]


def test_tags_are_added_beside_the_first_caption_and_undone(database: Database) -> None:
    key = filled(database, "a fox", "an owl")
    with database.write() as session:
        first, second = service.list_images(session, key)
        change_caption(session, second.key, CaptionKind.TAGS, CaptionChange("owl"))
        propose(session, key, "fox, snow", "night", mode=CaptionMode.APPEND, kind=CaptionKind.TAGS)
        shown = proposals.list_proposed(session, key)
        assert [(change.before, change.after) for change in shown] == [
            ("", "fox, snow"),
            ("owl", "owl, night"),
        ]
        edit_id = proposals.apply_proposals(session, key).edit_id
        assert edit_id is not None
        assert captions_of(session, key) == ["a fox", "an owl"]
        rows = session.exec(select(ImageCaption).order_by(col(ImageCaption.image_id))).all()
        assert [row.caption for row in rows] == ["fox, snow", "owl, night"]
        assert steps.undo_edit(session, key, edit_id).changed == 2
        left = session.exec(select(ImageCaption)).all()
        assert [(row.image_id, row.caption) for row in left] == [(second.key, "owl")]
        # the history keeps what was undone
        assert caption_history(session, first)[0].caption == "fox, snow"


def test_tags_of_many_images_are_read_in_few_queries(database: Database) -> None:
    asked: list[str] = []
    read = []
    for images in (2, 30):
        key = filled(database, *["a fox"] * images)
        with database.write() as session:
            propose(session, key, *["fox"] * images, kind=CaptionKind.TAGS)
        sa.event.listen(
            database.engine, "before_cursor_execute", note := lambda *a: asked.append(a[2])
        )
        with database.write() as session:
            applied = proposals.apply_proposals(session, key)
            assert applied.edit_id is not None
            assert steps.undo_edit(session, key, applied.edit_id).changed == images
        sa.event.remove(database.engine, "before_cursor_execute", note)
        read.append(sum(statement.startswith("SELECT") for statement in asked))
        asked.clear()
    assert read[0] == read[1]


def test_tags_that_were_written_meanwhile_stay(database: Database) -> None:
    key = filled(database, "a fox", "an owl")
    with database.write() as session:
        propose(session, key, "fox", "owl", kind=CaptionKind.TAGS)
        first = service.list_images(session, key)[0]
        change_caption(session, first.key, CaptionKind.TAGS, CaptionChange("mine"))
        service.caption_image(session, first.key, "another caption, which does not matter")
        applied = proposals.apply_proposals(session, key)
        assert (applied.changed, applied.changed_meanwhile) == (1, 1)
        assert proposals.list_proposed(session, key) == []


def test_proposals_of_one_image_are_on_one_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = filled(database, "", "", "", "")
    monkeypatch.setattr(view, "A_PAGE", 3)
    with database.write() as session:
        dataset = service.get_dataset(session, key)
        propose(session, key, "fox", "owl", "hen", "cat", kind=CaptionKind.TAGS)
        propose(session, key, "a fox", "an owl", "a hen")
        first = [change.after for change in proposals.list_proposed(session, key, limit=3)]
        assert first == ["fox", "a fox", "owl", "an owl"]
        pages: list[list[str]] = []
        after: int | None = 0
        while after is not None:
            page = view.make_results(session, dataset, after=after)
            pages.append([change.after for change, _ in page.changes])
            after = page.next
        assert pages == [["fox", "a fox"], ["owl", "an owl"], ["hen", "a hen", "cat"]]


def test_a_person_chooses_among_proposals(database: Database) -> None:
    key = filled(database, None, None, None)
    with database.write() as session:
        first, second, _ = propose(session, key, "a fox", "an owl", "a cat")
        assert proposals.apply_proposals(session, key, [first.key, 999]).changed == 1
        assert proposals.discard_proposals(session, key, [second.key]) == 1
        assert captions_of(session, key) == ["a fox", "", ""]
        assert [c.after for c in proposals.list_proposed(session, key)] == ["a cat"]
        assert proposals.discard_proposals(session, key) == 1
        assert proposals.apply_proposals(session, key).edit_id is None


def test_a_newer_proposal_takes_the_place_of_an_older_one(database: Database) -> None:
    key = filled(database, None)
    with database.write() as session:
        propose(session, key, "a fox")
        propose(session, key, "an owl")
        assert [c.after for c in proposals.list_proposed(session, key)] == ["an owl"]


def test_what_would_be_too_long_is_counted(database: Database) -> None:
    key = filled(database, "x" * 1_990)
    with database.write() as session:
        propose(session, key, "a fox in the snow", mode=CaptionMode.APPEND)
        applied = proposals.apply_proposals(session, key)
        assert (applied.changed, applied.refused) == (0, 1)


def test_proposals_of_deleted_images_wait_and_go_with_them(database: Database) -> None:
    key = filled(database, None, None)
    with database.write() as session:
        propose(session, key, "a fox", "an owl")
        first = service.list_images(session, key)[0]
        service.delete_image(session, first.key)
        assert proposals.apply_proposals(session, key).changed == 1
        deletion.delete_image(session, first.key)
        left = session.exec(select(CaptionProposal)).all()
        assert [row.state for row in left] == [ProposalState.APPLIED]
