"""Orders of captions: what may be asked, of which images, and what of whom."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import sqlalchemy as sa

from app.registry.config import Settings
from app.registry.datasets import service
from app.registry.datasets.auto_caption import orders, proposals, providers
from app.registry.datasets.auto_caption.proposals import store_proposals
from app.registry.datasets.edits.steps import undo_edit
from app.registry.datasets.image_captions.changes import CaptionChange, change_caption
from app.registry.db import Database
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.job_kinds.caption_kinds import (
    CaptionArgs,
    CaptionImagesArgs,
    CaptionImagesResult,
    PreviewCaptionArgs,
)
from app.registry.tables.datasets import CaptionProposal, Dataset, ProposalState
from app.registry.tables.jobs import IoJob
from tests.app.datasets.test_service import filled, picture
from worker.core.captioning.file_names import GIVEN
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.words import CaptionKind

OLLAMA = CaptionArgs(provider=ProviderKind.OLLAMA, prompt=" Say it ", do_not_name=("chalk",))


def test_empty_captions_are_filled_and_all_are_replaced(
    database: Database, caption_settings: Settings
) -> None:
    key = filled(database, "a fox", None, None)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        ids = [image.key for image in service.list_images(session, key)]
        job = orders.order_captions(session, dataset, OLLAMA, caption_settings)
        args = job.arguments(CaptionImagesArgs)
        assert (args.image_ids, args.mode) == (tuple(ids[1:]), CaptionMode.FILL)
        assert (args.address, args.model) == ("http://127.0.0.1:11434", "llava")
        assert (args.prompt, args.do_not_name) == ("Say it", ("chalk",))
        with pytest.raises(Conflict, match="being written"):
            orders.order_captions(session, dataset, OLLAMA, caption_settings)
        assert orders.cancel_order(session, key, job.key).job.status == "canceled"
        job = orders.order_captions(
            session,
            dataset,
            OLLAMA,
            caption_settings,
            image_ids=[*ids[:2], 999],
            mode=CaptionMode.REPLACE,
        )
        assert job.arguments(CaptionImagesArgs).image_ids == tuple(ids[:2])


def test_images_without_the_caption_that_is_asked_for_come_first(database: Database) -> None:
    key = filled(database, "", "a fox", "")
    with database.write() as session:
        ids = [image.key for image in service.list_images(session, key)]
        change_caption(session, ids[0], CaptionKind.TAGS, CaptionChange("fox"))
        for chosen in (None, ids):
            found = orders.chosen_images(session, key, chosen, first=2, kind=CaptionKind.TAGS)
            assert [image.key for image in found.first] == ids[1:]
            assert (found.total, found.empty) == (3, 2)
        found = orders.chosen_images(session, key, None, first=3)
        assert [image.key for image in found.first] == [ids[0], ids[2], ids[1]]


def test_an_impossible_order_is_refused_with_the_reason(
    database: Database, caption_settings: Settings
) -> None:
    key, empty = filled(database, "a fox"), filled(database)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        with pytest.raises(InvalidInput, match="All 1 of these images have captions"):
            orders.order_captions(session, dataset, OLLAMA, caption_settings)
        with pytest.raises(InvalidInput, match="no images"):
            orders.order_captions(
                session, session.get_one(Dataset, empty), OLLAMA, caption_settings
            )
        with pytest.raises(InvalidInput, match="shown first"):
            orders.order_captions(
                session, dataset, OLLAMA, caption_settings, mode=CaptionMode.APPEND, write=True
            )
        with pytest.raises(NotFound):
            orders.order_preview(session, dataset, 999, OLLAMA, caption_settings)
        with pytest.raises(NotFound):
            orders.get_order(session, key, 999)


def test_a_preview_asks_what_an_order_asks(database: Database, caption_settings: Settings) -> None:
    key = filled(database, None)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        (image,) = service.list_images(session, key)
        preview = orders.order_preview(session, dataset, image.key, OLLAMA, caption_settings)
        order = orders.order_captions(session, dataset, OLLAMA, caption_settings)
        asked = preview.arguments(PreviewCaptionArgs).model_dump(exclude={"image_id"})
        assert asked.items() <= order.arguments(CaptionImagesArgs).model_dump().items()
        assert orders.get_preview(session, key, preview.key).result.caption == ""
        with pytest.raises(NotFound):
            orders.get_preview(session, key, order.key)


def test_an_order_that_ended_early_goes_on_with_what_is_left(
    database: Database, caption_settings: Settings
) -> None:
    key = filled(database, None, None, None, None)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        ids = [image.key for image in service.list_images(session, key)]
        job = orders.order_captions(session, dataset, OLLAMA, caption_settings, write=False)
        for image_id, state in zip(
            ids, (ProposalState.PROPOSED, ProposalState.FAILED), strict=False
        ):
            row = CaptionProposal(job_id=job.key, image_id=image_id, state=state)
            store_proposals(session, [row])
        orders.cancel_order(session, key, job.key)
        found = orders.get_order(session, key, job.key)
        assert (found.total, found.done, found.captioned) == (4, 2, 1)
        following = orders.continue_order(session, dataset, job.key, caption_settings)
        args = following.arguments(CaptionImagesArgs)
        assert (args.image_ids, args.prompt) == (tuple(ids[1:]), "Say it")
        newest = orders.newest_order(session, key)
        assert newest is not None
        assert (newest.job.key, newest.is_active) == (following.key, True)


def ask(provider: ProviderKind, **settings: Any) -> CaptionArgs:
    return CaptionArgs(provider=provider, **settings)


@pytest.mark.parametrize(
    ("request_", "field", "sentence"),
    [
        (
            ask(ProviderKind.OLLAMA, address="http://evil.lan"),
            "address",
            "evil.lan:80",
        ),
        (
            ask(ProviderKind.OLLAMA, address="gopher"),
            "address",
            "is not an address",
        ),
        (ask(ProviderKind.OLLAMA, prompt="  "), "prompt", "Say what"),
        (
            ask(ProviderKind.OLLAMA, prompt="x" * 5000),
            "prompt",
            "longer than 4,000",
        ),
        (ask(ProviderKind.OPENAI), "model", "Enter the name of a model"),
        (ask(ProviderKind.OPENAI, model="x" * 201), "model", "at most 200"),
        (ask(ProviderKind.LOCAL), "provider", "add one under Caption models"),
        (ask(ProviderKind.LOCAL, model_id=7), "provider", "was removed"),
        (ask(ProviderKind.LOCAL, model="blip"), "provider", "none yet; add one"),
        (ask(ProviderKind.BUILTIN, do_not_name=["x"] * 201), "do_not_name", "200"),
        (ask(ProviderKind.BUILTIN, do_not_name=["x" * 81]), "do_not_name", "80"),
    ],
)
def test_a_request_is_refused_with_the_reason(
    database: Database,
    caption_settings: Settings,
    request_: CaptionArgs,
    field: str,
    sentence: str,
) -> None:
    with (
        database.read() as session,
        pytest.raises(InvalidInput, match=sentence) as refused,
    ):
        providers.check_request(session, caption_settings, request_)
    assert set(refused.value.fields) == {field}


def test_a_key_goes_to_its_own_address_alone(
    database: Database, caption_settings: Settings
) -> None:
    openai = ProviderKind.OPENAI
    assert caption_settings.openai_url is not None
    assert providers.key_for(caption_settings, openai, caption_settings.openai_url) == "sk-secret"
    other = CaptionArgs(provider=openai, address="http://other.lan:8000/v1", model="x")
    with database.read() as session:
        address = providers.check_request(session, caption_settings, other).address
    assert providers.key_for(caption_settings, openai, address) == ""
    assert providers.key_for(caption_settings, ProviderKind.OLLAMA, address) == ""
    assert "sk-secret" not in repr(caption_settings) + caption_settings.model_dump_json()


def test_servers_that_are_not_set_up_say_how(database: Database, settings: Settings) -> None:
    settings = settings.model_copy(update={"ollama_local": False})
    with database.read() as session:
        builtin, _, ollama, openai = providers.list_providers(session, settings)
    assert builtin.problem == ""
    assert "BRUSHWORK_OLLAMA_URL" in ollama.problem
    assert "BRUSHWORK_OPENAI_URL" in openai.problem
    asked = CaptionArgs(provider=ProviderKind.OLLAMA, model="llava")
    with database.read() as session, pytest.raises(InvalidInput, match="BRUSHWORK_OLLAMA_URL"):
        providers.check_request(session, settings, asked)


def test_an_address_in_the_settings_is_checked() -> None:
    with pytest.raises(ValueError, match="is not an address"):
        Settings(_env_file=None, ollama_url="localhost:11434")


def test_the_trigger_word_is_not_named(database: Database) -> None:
    key = filled(database)
    with database.read() as session:
        words = providers.default_words(session.get_one(Dataset, key))
    assert words[0] == "chalk"
    assert "watercolor" in words


def test_orders_are_jobs_of_the_io_worker(database: Database, caption_settings: Settings) -> None:
    key = filled(database, None)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        job = orders.order_captions(session, dataset, OLLAMA, caption_settings)
        assert (job.kind, job.subject_id) == ("caption_images", key)
        assert session.get(IoJob, job.key) is job


NAMED = ("openmoji_red_fox-1.png", "openmoji_car.png", "IMG_1234.png", "openmoji_owl.png")
FROM_NAMES = CaptionArgs(provider=ProviderKind.FILENAME, do_not_name=("owl",))


def named(database: Database) -> int:
    """A dataset of four images with file names, the second of which has a caption."""
    with database.write() as session:
        dataset = service.create_dataset(session, "Emoji")
        new = [
            dataclasses.replace(picture(n, "a car" if n == 1 else None), filename=name)
            for n, name in enumerate(NAMED)
        ]
        service.add_images(session, dataset.key, new)
        return dataset.key


def test_file_names_become_proposals_at_once_and_without_a_worker(
    database: Database, caption_settings: Settings
) -> None:
    key = named(database)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        job = orders.order_captions(session, dataset, FROM_NAMES, caption_settings)
        order = orders.get_order(session, key, job.key)
        assert (job.status, order.done, order.captioned, order.written) == ("succeeded", 3, 1, None)
        (change,) = proposals.list_proposed(session, key)
        assert (change.after, change.proposal.source_name) == ("red fox", "File names")
        left = proposals.list_left_empty(session, job.key, limit=9)
        assert [(row.image.filename, row.proposal.note) for row in left] == [
            ("IMG_1234.png", GIVEN),
            ("openmoji_owl.png", "The answer had only words that are not to be named."),
        ]


def test_captions_from_file_names_are_written_shown_first_and_undone(
    database: Database, caption_settings: Settings
) -> None:
    key = named(database)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        request = CaptionArgs(provider=ProviderKind.FILENAME)
        job = orders.order_captions(session, dataset, request, caption_settings, write=True)
        order = orders.get_order(session, key, job.key)
        now = [image.caption for image in service.list_images(session, key)]
        assert (order.written, now) == (2, ["red fox", "a car", "", "owl"])
        edit_id = job.outcome(CaptionImagesResult).edit_id
        assert edit_id is not None
        assert undo_edit(session, key, edit_id).changed == 2
        orders.order_captions(session, dataset, request, caption_settings, mode=CaptionMode.REPLACE)
        shown = [(change.before, change.after) for change in proposals.list_proposed(session, key)]
        assert shown == [("", "red fox"), ("a car", "car"), ("", "owl")]


def test_one_file_name_is_tried_among_the_others(
    database: Database, caption_settings: Settings
) -> None:
    key = named(database)
    with database.write() as session:
        dataset = session.get_one(Dataset, key)
        first, _, third, _ = service.list_images(session, key)
        for image, caption in ((first, "red fox"), (third, "")):
            job = orders.order_preview(session, dataset, image.key, FROM_NAMES, caption_settings)
            assert orders.get_preview(session, key, job.key).result.caption == caption
            assert not job.state.is_active


def test_many_file_names_are_read_in_few_statements(
    database: Database, caption_settings: Settings
) -> None:
    asked: list[str] = []
    counted = []
    for images in (2, 30):
        key = filled(database, *[None] * images)
        with database.write() as session:
            dataset = session.get_one(Dataset, key)
            for image in service.list_images(session, key):
                image.filename = f"fox {'a' * image.key}.png"
            session.flush()
            sa.event.listen(
                database.engine, "before_cursor_execute", note := lambda *a: asked.append(a[2])
            )
            orders.order_captions(session, dataset, FROM_NAMES, caption_settings, write=True)
        sa.event.remove(database.engine, "before_cursor_execute", note)
        counted.append(sum(statement.startswith("SELECT") for statement in asked))
        asked.clear()
    assert counted[0] == counted[1]
