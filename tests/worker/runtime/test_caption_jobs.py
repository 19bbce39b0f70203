"""Orders of captions as io jobs: one image after another, each kept, none twice."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

from app.registry.datasets import service
from app.registry.datasets.auto_caption import orders, proposals
from app.registry.datasets.image_captions.changes import CaptionChange, change_caption
from app.registry.job_kinds.caption_kinds import CaptionArgs, PreviewCaptionResult
from app.registry.tables.datasets import CaptionProposal, Dataset, DatasetEdit, Image, ImageCaption
from app.registry.tables.jobs import IoJob
from app.web.datasets.auto_caption.api import preview_out
from tests.caption_servers import CaptionServer, caption_server
from tests.worker.runtime.job_loops import Registry, add_images, wait_for
from tests.worker.runtime.time_limits.test_limited_jobs import job_processes, limited
from worker.core.captioning.remote import requests
from worker.core.captioning.remote.requests import Server, TimeLimits
from worker.core.captioning.words import ProviderKind
from worker.core.words import CaptionKind
from worker.runtime import caption_jobs
from worker.runtime.io_jobs import IoJobs
from worker.runtime.time_limits.limited_jobs import COMMAND

OLLAMA = CaptionArgs(provider=ProviderKind.OLLAMA, prompt="Say it", do_not_name=("chalk", "style"))


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    """It sees how wide the ellipse of a picture is: 24 px and 8 more for each number."""
    with caption_server() as running:
        running.answer = lambda image, prompt: f"shape {image.size[0]}, chalk style"
        yield running


@pytest.fixture
def shapes(registry: Registry, server: CaptionServer) -> Registry:
    """The registry with four images without captions, and an Ollama server."""
    add_images(registry)
    object.__setattr__(
        registry,
        "settings",
        registry.settings.model_copy(update={"ollama_url": server.url, "ollama_model": "llava"}),
    )
    return registry


def order(registry: Registry, request: CaptionArgs = OLLAMA, **options: object) -> int:
    with registry.database.write() as session:
        dataset = session.get_one(Dataset, registry.dataset_id)
        job = orders.order_captions(
            session,
            dataset,
            request,
            registry.settings,
            **options,  # type: ignore[arg-type]
        )
        return job.key


def io_jobs(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def captions(registry: Registry) -> list[str]:
    return [image.caption for image in registry.rows(Image)]


def test_captions_are_written_at_the_end_in_one_step(
    shapes: Registry, server: CaptionServer
) -> None:
    key = order(shapes, write=True)
    with shapes.working(io_jobs(shapes)):
        ended = shapes.until_final(IoJob, key)
    written = {"done": 4, "total": 4, "written": 4, "edit_id": 1}
    assert (ended.status, ended.result) == ("succeeded", written)
    assert captions(shapes) == ["shape 64"] * 4
    assert server.prompts == ["Say it"] * 4
    (edit,) = shapes.rows(DatasetEdit)
    assert (edit.action, edit.changed) == ("auto_caption", 4)


def test_another_caption_is_written_beside_the_first_one(
    shapes: Registry, server: CaptionServer
) -> None:
    with shapes.database.write() as session:
        first, second = (image.key for image in shapes.rows(Image)[:2])
        service.caption_image(session, first, "a shape")
        change_caption(session, second, CaptionKind.TAGS, CaptionChange("shape"))
    key = order(shapes, write=True, kind=CaptionKind.TAGS)
    with shapes.working(io_jobs(shapes)):
        assert shapes.until_final(IoJob, key).status == "succeeded"
    assert captions(shapes) == ["a shape", "", "", ""]
    rows = {row.image_id: (row.kind, row.caption) for row in shapes.rows(ImageCaption)}
    assert rows.pop(second) == ("tags", "shape")
    assert set(rows.values()) == {("tags", "shape 64")}
    assert len(rows) == len(server.prompts) == 3


def test_a_failed_image_is_named_and_the_others_go_on(
    shapes: Registry, server: CaptionServer
) -> None:
    server.faults = ["", "html", "", "nonsense"]
    key = order(shapes)
    with shapes.working(io_jobs(shapes)):
        assert shapes.until_final(IoJob, key).status == "succeeded"
    rows = shapes.rows(CaptionProposal)
    assert [row.state for row in rows] == ["proposed", "failed", "proposed", "proposed"]
    assert "answered with a web page" in rows[1].note
    assert (rows[0].caption, rows[0].removed) == ("shape 64", "chalk, style")
    assert captions(shapes) == [""] * 4
    with shapes.database.write() as session:
        assert proposals.apply_proposals(session, shapes.dataset_id).changed == 3


def test_a_provider_that_is_broken_or_gone_ends_the_order(
    shapes: Registry, server: CaptionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_jobs, "FAILURES_IN_A_ROW", 2)
    server.faults = ["", "empty", "empty"]
    broken = order(shapes)
    with shapes.working(io_jobs(shapes)):
        ended = shapes.until_final(IoJob, broken)
        assert (ended.status, ended.error_code) == ("failed", "provider")
        assert ended.error.startswith("2 images in a row failed")
        server.faults = ["", "no-model"]
        with shapes.database.write() as session:
            dataset = session.get_one(Dataset, shapes.dataset_id)
            following = orders.continue_order(session, dataset, broken, shapes.settings).key
        gone = shapes.until_final(IoJob, following)
    assert (gone.status, gone.error) == (
        "failed",
        f"{server.url.removeprefix('http://')} has no model “llava”. Get it with "
        "`ollama pull llava`, or choose another.",
    )
    rows = shapes.rows(CaptionProposal)
    assert [(row.job_id == broken, row.state) for row in rows] == [
        (True, "proposed"),
        (True, "failed"),
        (True, "failed"),
        (False, "proposed"),
    ]


def test_a_preview_shows_what_an_order_would_propose(
    shapes: Registry, server: CaptionServer
) -> None:
    image = shapes.rows(Image)[2]
    with shapes.database.write() as session:
        dataset = session.get_one(Dataset, shapes.dataset_id)
        key = orders.order_preview(session, dataset, image.key, OLLAMA, shapes.settings).key
    with shapes.working(io_jobs(shapes)):
        ended = shapes.until_final(IoJob, key)
        assert shapes.until_final(IoJob, order(shapes)).status == "succeeded"
    shown = ended.outcome(PreviewCaptionResult)
    assert (shown.caption, shown.title) == ("shape 64", "Ollama llava")
    assert shown.removed == ("chalk", "style")
    assert shown.caption == shapes.rows(CaptionProposal)[2].caption
    assert server.requests[0] == server.requests[3]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("500", "status 500"),
        ("html", "answered with a web page"),
        ("cut", "broke off its answer"),
        ("empty", "answered without a caption"),
        ("silent", "sent nothing for 0.3 s"),
        ("refuse", "“llava” refused: “I'm sorry, I can't help with that.”"),
    ],
)
def test_a_preview_without_an_answer_fails_with_the_reason(
    shapes: Registry,
    server: CaptionServer,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    sentence: str,
) -> None:
    limits = TimeLimits(silence=0.3) if fault == "silent" else TimeLimits()
    monkeypatch.setattr(caption_jobs, "Server", partial(Server, limits=limits))
    monkeypatch.setattr(requests, "WAITS", ())
    if fault == "refuse":
        server.answer = lambda image, prompt: "I'm sorry, I can't help with that."
    else:
        server.faults = [fault]
    with shapes.database.write() as session:
        dataset = session.get_one(Dataset, shapes.dataset_id)
        image_id = shapes.rows(Image)[0].key
        key = orders.order_preview(session, dataset, image_id, OLLAMA, shapes.settings).key
    with shapes.working(io_jobs(shapes)):
        ended = shapes.until_final(IoJob, key)
    assert (ended.status, ended.error_code, ended.result) == ("failed", "caption", {})
    assert sentence in ended.error
    with shapes.database.read() as session:
        shown = preview_out(orders.get_preview(session, shapes.dataset_id, key))
    assert (shown.status, shown.error, shown.caption, shown.note) == ("failed", ended.error, "", "")


def test_an_image_that_got_a_caption_or_was_deleted_meanwhile_is_not_asked_about(
    shapes: Registry, server: CaptionServer
) -> None:
    key = order(shapes, write=True)
    with shapes.database.write() as session:
        first, second = (session.get_one(Image, row.key) for row in shapes.rows(Image)[:2])
        first.caption, second.deleted_at = "mine", second.created_at
    with shapes.working(io_jobs(shapes)):
        assert shapes.until_final(IoJob, key).status == "succeeded"
    assert len(server.requests) == 2
    assert captions(shapes) == ["mine", "", "shape 64", "shape 64"]
    assert [row.state for row in shapes.rows(CaptionProposal)] == ["skipped", "applied", "applied"]


def test_an_address_that_is_no_longer_allowed_is_not_asked(
    shapes: Registry, server: CaptionServer
) -> None:
    key = order(shapes)
    moved = shapes.settings.model_copy(update={"ollama_url": "http://127.0.0.1:1"})
    with shapes.working(IoJobs(moved, shapes.database, shapes.store)):
        ended = shapes.until_final(IoJob, key)
    assert ended.status == "failed"
    assert "BRUSHWORK_CAPTION_HOSTS" in ended.error
    assert server.requests == []


def test_the_built_in_eyes_leave_a_caption_empty_and_say_so(shapes: Registry) -> None:
    key = order(shapes, CaptionArgs(provider=ProviderKind.BUILTIN), write=True)
    with shapes.working(io_jobs(shapes)):
        assert shapes.until_final(IoJob, key).status == "succeeded"
    rows = shapes.rows(CaptionProposal)
    assert {row.state for row in rows} <= {"empty", "applied"}
    unsure = [row for row in rows if row.state == "empty"]
    assert unsure  # an ellipse is no subject
    assert all(row.note.startswith("Not sure enough of a subject") for row in unsure)
    assert all(row.guess and row.confidence and row.confidence < 0.9 for row in unsure)


@pytest.mark.skipif(sys.platform != "linux", reason="forks its processes")
def test_a_killed_order_goes_on_and_a_canceled_one_keeps_what_it_has(
    shapes: Registry, server: CaptionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real process: it is killed while the server says nothing of the third image."""
    monkeypatch.setattr("worker.runtime.time_limits.limited_jobs.GRACE_SECONDS", 0.3)
    server.faults = ["", "", "silent", "silent"]
    key = order(shapes, CaptionArgs(provider=ProviderKind.OLLAMA, prompt="Say it"))
    with shapes.working(limited(shapes, COMMAND)):
        wait_for(lambda: len(server.requests) == 3)
        (client,) = job_processes()
        for process in (*client.children(recursive=True), client):
            process.kill()
        wait_for(lambda: len(server.requests) == 4)
        row = shapes.row(IoJob, key)
        assert (row.status, row.attempt) == ("running", 2)
        shapes.cancel(IoJob, key)
        assert shapes.until_final(IoJob, key).status == "canceled"
        rows = shapes.rows(CaptionProposal)
        assert [row.image_id for row in rows] == [image.key for image in shapes.rows(Image)[:2]]
        with shapes.database.write() as session:
            dataset = session.get_one(Dataset, shapes.dataset_id)
            rest = orders.continue_order(session, dataset, key, shapes.settings).key
        assert shapes.until_final(IoJob, rest).status == "succeeded"
    assert len(server.requests) == 6
    with shapes.database.read() as session:
        assert proposals.count_proposed(session, shapes.dataset_id) == 4
    assert not psutil.pid_exists(client.pid)
    assert shapes.rows(DatasetEdit) == []
