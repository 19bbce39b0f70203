"""Guesses that a provider was too unsure to write: listed, taken one by one or from a share on."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from app.registry.datasets import service
from app.registry.datasets.auto_caption import guesses, orders, proposals
from app.registry.datasets.auto_caption.orders import OrderProgress
from app.registry.datasets.edits.steps import undo_edit
from app.registry.db import Database
from app.registry.job_kinds.caption_kinds import CaptionImagesArgs, PreviewCaptionResult
from app.registry.tables.datasets import CaptionProposal
from app.registry.tables.jobs import IoJob
from tests.app.datasets.test_service import filled
from worker.core.captioning.interface import CaptionAnswer
from worker.core.captioning.words import CaptionMode, ProviderKind

GUESSES = (("church", 0.68), ("castle", 0.50), ("pear", 0.49))


def unsure(
    session: Session, key: int, mode: CaptionMode = CaptionMode.FILL, *words: str
) -> OrderProgress:
    """An order of the built-in captioner that was too unsure of the first images."""
    args = CaptionImagesArgs(provider=ProviderKind.BUILTIN, image_ids=(1, 2, 3), mode=mode)
    job = IoJob(kind=args.kind, subject_id=key, args=args.stored(), status="succeeded")
    session.add(job)
    session.flush()
    rows = []
    for image, (name, confidence) in zip(service.list_images(session, key), GUESSES, strict=False):
        answer = CaptionAnswer("", "Not sure.", guess=name, confidence=confidence)
        row = CaptionProposal(
            job_id=job.key,
            image_id=image.key,
            mode=mode,
            source_name="Built in",
            seen_version=image.caption_version,
        )
        said = PreviewCaptionResult.of_answer("Built in", answer, words)
        rows.append(proposals.answered(row, said))
    proposals.store_proposals(session, rows)
    return orders.get_order(session, key, job.key)


def named(session: Session, order: OrderProgress, above: float = 0.0) -> list[str]:
    return [row.after for row in guesses.list_guesses(session, order, above=above)]


def captions(session: Session, key: int) -> list[str]:
    return [image.caption for image in service.list_images(session, key)]


def test_guesses_are_listed_by_confidence_and_taken_from_one_on(database: Database) -> None:
    key = filled(database, None, None, None, None)
    with database.write() as session:
        order = unsure(session, key)
        assert named(session, order) == ["church", "castle", "pear"]
        assert named(session, order, 0.5) == ["church", "castle"]
        assert guesses.count_guesses(session, order, above=0.5) == 2
        assert proposals.count_proposed(session, key) == 0
        applied = guesses.apply_guesses(session, order, above=0.5)
        assert captions(session, key) == ["church", "castle", "", ""]
        assert named(session, order) == ["pear"]
        written = proposals.list_written(session, order.job.key, limit=9)
        assert [row.before for row in written] == ["castle", "church"]
        assert applied.edit_id is not None
        undo_edit(session, key, applied.edit_id)
        assert captions(session, key) == [""] * 4
        assert named(session, order) == ["church", "castle", "pear"]
        assert proposals.list_written(session, order.job.key, limit=9) == []
        assert guesses.apply_guesses(session, order, above=0.68).changed == 1


def test_one_guess_is_taken_and_no_caption_of_a_person_is_lost(database: Database) -> None:
    key = filled(database, None, None, None)
    with database.write() as session:
        order = unsure(session, key)
        first, second, _ = guesses.list_guesses(session, order)
        assert guesses.apply_guesses(session, order, [second.proposal.key]).changed == 1
        service.caption_image(session, first.image.key, "mine")
        assert named(session, order) == ["pear"]
        assert guesses.apply_guesses(session, order, [first.proposal.key, 999]).edit_id is None
        assert captions(session, key) == ["mine", "castle", ""]


@pytest.mark.parametrize(
    ("mode", "after"), [(CaptionMode.APPEND, "a fox, church"), (CaptionMode.REPLACE, "church")]
)
def test_guesses_of_an_order_that_changes_captions_do_so(
    database: Database, mode: CaptionMode, after: str
) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        order = unsure(session, key, mode)
        assert named(session, order) == [after]
        edit_id = guesses.apply_guesses(session, order, above=0).edit_id
        assert captions(session, key) == [after]
        assert named(session, order) == []
        assert len(proposals.list_written(session, order.job.key, limit=9)) == 1
        assert edit_id is not None
        undo_edit(session, key, edit_id)
        assert proposals.list_written(session, order.job.key, limit=9) == []


def test_a_guess_for_a_caption_that_was_changed_meanwhile_is_not_offered(
    database: Database,
) -> None:
    key = filled(database, "a fox")
    with database.write() as session:
        order = unsure(session, key, CaptionMode.REPLACE)
        (image,) = service.list_images(session, key)
        service.caption_image(session, image.key, "mine")
        assert guesses.count_guesses(session, order) == 0
        assert guesses.apply_guesses(session, order, above=0).changed == 0


def test_a_guess_that_is_not_to_be_named_is_none(database: Database) -> None:
    key = filled(database, None, None)
    with database.write() as session:
        order = unsure(session, key, CaptionMode.FILL, "church")
        assert named(session, order) == ["castle"]
        assert len(proposals.list_left_empty(session, order.job.key, limit=9)) == 1
