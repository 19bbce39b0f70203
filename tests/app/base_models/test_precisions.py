"""The precision of images is chosen once for each base model and machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from app.registry.base_models.precisions import (
    chosen_precision,
    expected_precision,
    record_choice,
)
from app.registry.db import Session
from app.registry.jobs.presence import Presence
from app.registry.renders import service as renders
from app.registry.renders.requests import RenderRequest
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel, BasePrecision, ModelStatus
from app.registry.tables.jobs import WorkerPresence
from app.registry.tables.renders import Render, RenderImage


@pytest.fixture
def session(state: AppState) -> Iterator[Session]:
    with state.database.write() as session:
        session.connection().execute(sa.delete(WorkerPresence))
        yield session


@pytest.fixture
def base(session: Session, tmp_path: Path) -> BaseModel:
    base = BaseModel(
        slug="large",
        name="Large",
        source=str(tmp_path),
        status=ModelStatus.READY,
        family="sd1",
        resolution=512,
        fingerprint="f" * 64,
        parameters={"unet": 860_000_000},
    )
    session.add(base)
    session.flush()
    return base


def choose(session: Session, base: BaseModel, machine: str, precision: str) -> None:
    choice = BasePrecision(
        base_model_id=base.key,
        machine=machine,
        fingerprint=base.fingerprint,
        precision=precision,
        processor="Intel Xeon, 2 threads",
        width=256,
        height=256,
        fp32_seconds=3.74,
        bf16_seconds=1.25,
        step_effect=0.99,
    )
    record_choice(session, choice)
    session.flush()


def add_worker(session: Session, machine: str) -> None:
    session.add(
        WorkerPresence(id=f"of-{machine}", queue="render", host="here", pid=1, machine=machine)
    )
    session.flush()


def test_a_choice_is_found_by_base_machine_and_files(session: Session, base: BaseModel) -> None:
    assert chosen_precision(session, base, "cpu-a") is None
    choose(session, base, "cpu-a", "fp32")
    choose(session, base, "cpu-a", "bf16")  # replaces it
    found = chosen_precision(session, base, "cpu-a")
    assert found is not None
    assert found.precision == "bf16"
    assert chosen_precision(session, base, "cpu-b") is None
    base.fingerprint = "other files"
    assert chosen_precision(session, base, "cpu-a") is None


def test_the_workers_that_are_present_decide_what_is_expected(
    session: Session, base: BaseModel
) -> None:
    assert expected_precision(session, base) is None
    choose(session, base, "cpu-a", "bf16")
    assert expected_precision(session, base) == "bf16"  # no worker has started yet
    add_worker(session, "cpu-b")
    assert expected_precision(session, base) is None  # it has not chosen yet
    choose(session, base, "cpu-b", "fp32")
    assert expected_precision(session, base) == "fp32"
    add_worker(session, "cpu-a")
    assert expected_precision(session, base) is None  # either may take it


def test_an_image_of_one_precision_is_never_served_as_the_other(
    session: Session, base: BaseModel, state: AppState
) -> None:
    sha256 = state.store.put_bytes(b"an image").sha256

    def create() -> Render:
        request = RenderRequest(prompt="a castle", seed=1, base_model=base.slug)
        return renders.create_render(session, request, state.store)

    first = create()
    assert (first.precision, first.status) == (None, "queued")
    first.status, first.precision = "succeeded", "bf16"
    session.add(RenderImage(render_id=first.key, index=0, seed=1, sha256=sha256))
    session.flush()
    assert create().status == "queued"  # its own precision is not known yet
    choose(session, base, "cpu-a", "bf16")
    again = create()
    assert (again.status, again.from_cache) == ("succeeded", True)
    assert [image.sha256 for image in renders.render_images(session, again.key)] == [sha256]
    choose(session, base, "cpu-a", "fp32")
    other = create()
    assert (other.precision, other.cache_key) == ("fp32", first.cache_key)
    assert other.status == "queued"


def test_a_worker_says_which_machine_it_runs_on(state: AppState) -> None:
    me = Presence("render")
    me.announce(state.database, device="", machine="")
    me.announce(state.database, device="CPU", machine="cpu-a")
    with state.database.read() as session:
        assert session.get_one(WorkerPresence, me.id).machine == "cpu-a"
    me.leave(state.database)


def test_the_list_says_how_images_are_generated_and_why(
    client: TestClient, state: AppState
) -> None:
    with state.database.write() as session:
        base = BaseModel(slug="big", name="Big", source="/big", status=ModelStatus.READY)
        session.add(base)
        session.flush()
        choose(session, base, "cpu-a", "bf16")
    page = " ".join(client.get("/base-models").text.split())
    assert (
        "Images are generated in bf16. Measured at 256 × 256 on Intel Xeon, 2 threads: a step "
        "takes 3.7 s in fp32 and 1.2 s in bf16, which keeps 99% of a weight step of 0.05." in page
    )
