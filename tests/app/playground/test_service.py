"""Renders as people ask for them, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from sqlmodel import select

from app.registry.adapters.resolve import trained_skip
from app.registry.base_models.precisions import record_choice
from app.registry.db import Database
from app.registry.errors import InvalidInput
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.jobs import service as jobs
from app.registry.renders import listing, plan, results, service
from app.registry.renders.requests import RenderRequest
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, BasePrecision
from app.registry.tables.renders import Render, RenderImage
from tests.fake_workers import weighted


@pytest.fixture
def adapter(database: Database, ready_base: None) -> int:
    with database.write() as session:
        row = Adapter(slug="chalk", name="Chalk", base_family="sd1")
        session.add(row)
        session.flush()
        for number in (1, 2):
            session.add(
                AdapterVersion(
                    adapter_id=row.key,
                    version=number,
                    sha256=f"{number:064x}",
                    size_bytes=1,
                    rank=4,
                    alpha=4,
                    base_model_id=1,
                )
            )
    return row.key


class ToldBlobs(LocalBlobStore):
    """A store that has every blob, or none."""

    def __init__(self, *, has_all: bool) -> None:
        self._has_all = has_all

    def exists(self, sha256: str) -> bool:
        return self._has_all


def ask(database: Database, **wishes: Any) -> Render:
    with database.write() as session:
        request = RenderRequest.model_construct(prompt="a fox", **wishes)
        return service.create_render(session, request, ToldBlobs(has_all=False))


def in_blocks(adapter: WeightedAdapter, **factors: float) -> WeightedAdapter:
    sent = adapter.model_dump() | {"block_weights": factors}
    return WeightedAdapter.model_validate(sent)


def succeed(database: Database) -> None:
    with database.write() as session:
        while claimed := jobs.claim_next(session, Render, lease_seconds=30):
            jobs.finish(session, Render, claimed[1], JobStatus.SUCCEEDED)


def test_text_is_read_as_the_adapters_were_trained(database: Database, adapter: int) -> None:
    with database.write() as session:
        second = session.exec(select(AdapterVersion).where(AdapterVersion.version == 2)).one()
        second.config = {"clip_skip": 2}
        session.add(second)
    assert ask(database).clip_skip == 1
    assert ask(database, adapters=[weighted(adapter, version=1)]).clip_skip == 1
    drawn = ask(database, adapters=[weighted(adapter, 0.0, version=2)], twin=True, seed=1)
    assert drawn.clip_skip == 2
    with_twin = ask(database, adapters=[weighted(adapter, version=2)], twin=True, seed=1)
    with database.read() as session:
        assert session.get_one(Render, with_twin.twin_id).clip_skip == 2
    told = ask(database, adapters=[weighted(adapter, version=2)], clip_skip=1)
    assert told.clip_skip == 1
    assert told.cache_key != ask(database, adapters=[weighted(adapter, version=2)]).cache_key


@pytest.mark.parametrize("kept", [None, True, "2", 0, 99, 2.0])
def test_a_config_from_elsewhere_cannot_break_the_reading(kept: object) -> None:
    assert trained_skip({"clip_skip": kept}) == 1


def test_sdxl_has_its_own_clip_skip(database: Database, ready_base: None) -> None:
    with database.write() as session:
        session.get_one(BaseModel, 1).family = "sdxl"
    with pytest.raises(InvalidInput, match="leave CLIP skip empty"):
        ask(database, clip_skip=2)
    assert ask(database, clip_skip=1).clip_skip == 1


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (
            {"width": 13, "height": 128},
            "width: Use a multiple of 8 from 32 to 2,048; the nearest is 32.",
        ),
        ({"width": 128, "height": "8192"}, "height: Use a multiple .* the nearest is 2,048."),
        ({"width": 100}, "the nearest is 96."),
        ({"width": "9" * 5_000}, "width: "),
        ({"seed": 2**32 - 1, "count": 8}, "with 8 images it is 4,294,967,288 at most."),
        ({"seed": 2**32}, "4,294,967,295 at most."),
        ({"seed": "9" * 5_000}, "seed: This number is too large. Enter a smaller one."),
    ],
)
def test_a_number_that_is_not_possible_is_refused_with_one_that_is(
    database: Database, ready_base: None, wish: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        ask(database, **wish)


def test_the_last_seeds_can_be_used_again_one_by_one(database: Database, ready_base: None) -> None:
    assert ask(database, seed=2**32 - 8, count=8).count == 8
    assert ask(database, seed=2**32 - 1).seed == 2**32 - 1


def test_equal_requests_have_equal_keys(database: Database, adapter: int) -> None:
    stack = [weighted(adapter, 0.5)]
    first, second = (ask(database, seed=1, adapters=stack).cache_key for _ in range(2))
    assert first == second
    assert first == ask(database, seed=1, adapters=[in_blocks(stack[0])]).cache_key
    for other in (
        {"seed": 1, "adapters": [in_blocks(stack[0], middle=0.5)]},
        {"seed": 1, "adapters": [in_blocks(stack[0], output=0.5)]},
        {"seed": 2, "adapters": stack},
        {"seed": 1, "adapters": [weighted(adapter, 0.6)]},
        {"seed": 1, "adapters": [weighted(adapter, 0.5, text_encoder_weight=0)]},
        {"seed": 1, "adapters": [weighted(adapter, 0.5, version=1)]},
        {"seed": 1, "adapters": stack, "guidance": 2.5},
        {"seed": 1, "adapters": stack, "sampler": "euler"},
    ):
        assert ask(database, **other).cache_key != first


def test_images_of_prompts_that_were_read_otherwise_are_not_reused(
    database: Database, ready_base: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> list[str]:
        prompts = ("a fox", "a (fox)", "fox " * 30)
        with database.write() as session:
            requests = [RenderRequest(prompt=prompt, seed=1) for prompt in prompts]
            store = ToldBlobs(has_all=False)
            return [service.create_render(session, one, store).cache_key for one in requests]

    new = keys()
    monkeypatch.setattr(plan, "PROMPT_VERSION", plan.PROMPT_VERSION + 1)
    assert [before == after for before, after in zip(new, keys(), strict=True)] == [
        True,
        False,
        False,
    ]


def test_images_that_are_older_than_the_choice_of_a_sampler_are_still_found(
    database: Database, ready_base: None
) -> None:
    render = ask(database, seed=1, sampler="ddim")
    assert render.cache_key == ask(database, seed=1).cache_key
    with database.read() as session:
        base = session.get_one(BaseModel, render.base_model_id)
    names = ("prompt", "negative_prompt", "seed", "steps", "guidance", "clip_skip")
    values = {name: getattr(render, name) for name in (*names, "width", "height", "count")}
    facts = [plan.SAMPLER_VERSION, base.key, base.fingerprint, values, []]
    content = json.dumps(facts, sort_keys=True)
    assert render.cache_key == hashlib.sha256(content.encode()).hexdigest()


def test_what_another_sampler_drew_is_listed_but_not_copied(
    database: Database, ready_base: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        (base,) = session.exec(select(BaseModel))
        choice = BasePrecision(base_model_id=base.key, machine="cpu", precision="fp32")
        choice.fingerprint = base.fingerprint
        record_choice(session, choice)
    monkeypatch.setattr(plan, "SAMPLER_VERSION", plan.SAMPLER_VERSION - 1)
    old = ask(database, seed=1)
    with database.write() as session:
        session.add(RenderImage(render_id=old.key, index=0, seed=1, sha256="f" * 64))
    succeed(database)
    monkeypatch.undo()
    new = ask(database, seed=1)
    with database.read() as session:
        store = ToldBlobs(has_all=True)
        cached = results.find_cached_images(session, old, store)
        assert cached is not None
        assert [image.sha256 for image in cached.images] == ["f" * 64]
        assert results.find_cached_images(session, new, store) is None
        assert [row.key for row in listing.recent_renders(session)] == [old.key]


def test_no_seed_means_another_picture_each_time(database: Database, ready_base: None) -> None:
    assert ask(database).seed != ask(database).seed


def test_a_stack_without_weight_needs_no_twin(database: Database, adapter: int) -> None:
    assert ask(database, adapters=[weighted(adapter, 0.0)], twin=True).twin_id is None
    assert ask(database, adapters=[weighted(adapter, 0.1)], twin=True).twin_id is not None
    assert ask(database, adapters=[weighted(adapter, 0.0, 0.5)], twin=True).twin_id is not None


def test_recent_renders_leave_out_those_that_are_only_a_twin(
    database: Database, adapter: int
) -> None:
    render = ask(database, adapters=[weighted(adapter, 1.0)], twin=True)
    alone = ask(database)
    succeed(database)
    with database.read() as session:
        recent = [row.key for row in listing.recent_renders(session)]
        of_adapter = [row.key for row in listing.adapter_renders(session, adapter)]
    assert recent == [alone.key, render.key]
    assert of_adapter == [render.key]


def test_all_that_is_wrong_is_named_at_once(database: Database, adapter: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        ask(database, steps=0, base_model="none", adapters=[weighted(99)])
    assert set(refused.value.fields) == {"adapters", "base_model"}
    with pytest.raises(InvalidInput) as refused:
        ask(database, steps=0, guidance=-1.0)
    assert set(refused.value.fields) == {"steps", "guidance"}
