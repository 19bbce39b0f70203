"""The io worker and caption models: downloads, checks, and orders by real, tiny models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from app.registry.added_models import service as added_models
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.datasets.auto_caption import orders, proposals
from app.registry.datasets.edits.steps import undo_edit
from app.registry.job_kinds.caption_kinds import CaptionArgs, PreviewCaptionResult
from app.registry.tables.added_models import CaptionModel
from app.registry.tables.datasets import CaptionProposal, Dataset, Image
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from tests.fake_hub import Hub, open_hub
from tests.worker.captioning.tiny_models import save_blip, save_florence2, save_wd_tagger
from tests.worker.runtime.job_loops import Registry, add_images, wait_for
from tests.worker.runtime.local_captions.test_captioner import STAND_IN, model_processes
from tests.worker.runtime.time_limits.test_limited_jobs import job_processes, limited
from worker.core.captioning.words import ProviderKind
from worker.runtime.io_jobs import IoJobs
from worker.runtime.local_captions import captioner

pytestmark = pytest.mark.usefixtures("forked_hub")
REPO = "acme/blip-tiny"
WEIGHTS = "model.safetensors"
SLOWLY = (sys.executable, "-m", "tests.worker.runtime.local_captions.slow_captions")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture
def pictures(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    """The registry with four images without captions; no login of this machine is seen."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as in every worker
    add_images(registry)
    return registry


@pytest.fixture
def hub(blip: Path) -> Iterator[Hub]:
    with open_hub() as opened:
        opened.add_folder(REPO, blip)
        yield opened


def io_jobs(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def add(registry: Registry, source: str | Path) -> int:
    with registry.database.write() as session:
        return added_models.add(session, CAPTION_MODELS, str(source), registry.settings).key


def until(registry: Registry, model_id: int, status: str) -> CaptionModel:
    def reached() -> CaptionModel | None:
        with registry.database.read() as session:
            model = added_models.get_model(session, CAPTION_MODELS, model_id)
            row = added_models.list_with_progress(session, CAPTION_MODELS, [model])[0]
        assert row.status in ("downloading", "checking", status), row.error
        return row.model if row.status == status else None

    found: CaptionModel = wait_for(reached)
    return found


def caption_request(model_id: int) -> CaptionArgs:
    return CaptionArgs(provider=ProviderKind.LOCAL, model_id=model_id, do_not_name=("blue theme",))


def order(registry: Registry, model_id: int) -> int:
    asked = caption_request(model_id)
    with registry.database.write() as session:
        dataset = session.get_one(Dataset, registry.dataset_id)
        return orders.order_captions(session, dataset, asked, registry.settings).key


@pytest.mark.parametrize("save", [save_florence2, save_wd_tagger])
def test_a_folder_captions_a_dataset_and_that_is_undone(
    save: object, pictures: Registry, tmp_path: Path
) -> None:
    folder = save(tmp_path / "tiny")  # type: ignore[operator]
    with pictures.working(io_jobs(pictures)):
        model_id = add(pictures, folder)
        model = until(pictures, model_id, "ready")
        assert model.family in ("florence2", "wd_tagger")
        ended = pictures.until_final(IoJob, order(pictures, model_id))
        assert (ended.status, ended.error) == ("succeeded", None)
    rows = pictures.rows(CaptionProposal)
    assert {row.source_name for row in rows} == {"tiny"}
    assert rows[0].caption
    with pictures.database.write() as session:
        applied = proposals.apply_proposals(session, pictures.dataset_id)
        assert applied.changed == 4
    assert [one.caption for one in pictures.rows(Image)] == [row.caption for row in rows]
    with pictures.database.write() as session:
        assert applied.edit_id is not None
        undo_edit(session, pictures.dataset_id, applied.edit_id)
    assert {one.caption for one in pictures.rows(Image)} == {""}
    assert model_processes() == []


def test_a_preview_shows_the_caption_that_an_order_proposes(
    pictures: Registry, tmp_path: Path
) -> None:
    image = pictures.rows(Image)[0]
    with pictures.working(io_jobs(pictures)):
        model_id = add(pictures, save_wd_tagger(tmp_path / "tiny"))
        until(pictures, model_id, "ready")
        with pictures.database.write() as session:
            dataset = session.get_one(Dataset, pictures.dataset_id)
            asked = caption_request(model_id)
            preview = orders.order_preview(session, dataset, image.key, asked, pictures.settings)
        shown = pictures.until_final(IoJob, preview.key).outcome(PreviewCaptionResult)
        pictures.until_final(IoJob, order(pictures, model_id))
    proposed = pictures.rows(CaptionProposal)[0].caption
    assert (shown.caption, shown.title) == (proposed, "tiny")


def test_a_model_of_the_hub_is_downloaded_checked_and_resumed(
    pictures: Registry, hub: Hub, blip: Path
) -> None:
    size = (blip / WEIGHTS).stat().st_size
    hub.hold_after[WEIGHTS] = size // 2
    settings = pictures.settings.model_copy(update={"hub_endpoint": hub.url})
    outward = replace(pictures, settings=settings)
    model_id = add(outward, REPO)
    with outward.working(io_jobs(outward)):
        wait_for(lambda: hub.gets(WEIGHTS))
        with outward.database.write() as session:
            added_models.cancel(session, CAPTION_MODELS, model_id)
        stopped = until(outward, model_id, "failed")
        assert "was stopped" in str(stopped.error)
        hub.go.set()
        assert add(outward, REPO) == model_id
        model = until(outward, model_id, "ready")
    commit = hub.repos[REPO].commit
    home = outward.settings.data_dir / "caption-models" / "acme--blip-tiny" / commit
    assert (model.local_path, model.revision) == (str(home), commit)
    assert (model.family, model.name) == ("blip", "blip-tiny")
    assert (home / WEIGHTS).read_bytes() == (blip / WEIGHTS).read_bytes()


def test_a_worker_that_ends_gives_the_download_back(pictures: Registry, hub: Hub) -> None:
    hub.hold_after[WEIGHTS] = 1_000
    settings = pictures.settings.model_copy(update={"hub_endpoint": hub.url})
    outward = replace(pictures, settings=settings)
    model_id = add(outward, REPO)
    with outward.working(io_jobs(outward)):
        wait_for(lambda: hub.gets(WEIGHTS))
    (job,) = outward.rows(IoJob, kind="download_caption_model")
    assert (job.status, job.attempt) == ("queued", 0)
    hub.go.set()
    with outward.working(io_jobs(outward)):
        until(outward, model_id, "ready")


def test_what_can_be_no_caption_model_says_so_before_gigabytes_come(
    pictures: Registry, hub: Hub, tmp_path: Path
) -> None:
    hub.add("acme/clip", {"config.json": b'{"model_type": "clip"}', WEIGHTS: b"x" * 99})
    hub.add("acme/pickle", {"config.json": b'{"model_type": "blip"}', "pytorch_model.bin": b"x"})
    hub.add("acme/base", {"model_index.json": b"{}"})
    settings = pictures.settings.model_copy(update={"hub_endpoint": hub.url})
    outward = replace(pictures, settings=settings)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "blip"}')
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    with outward.working(io_jobs(outward)):
        for source, sentence in (
            ("acme/clip", "type “clip” cannot caption images here"),
            ("acme/pickle", "is only a PyTorch pickle"),
            ("acme/base", "is no caption model"),
            ("acme/nothing", "was not found"),
            (str(pickled), "only PyTorch pickles"),
            (str(tmp_path), "has no config.json"),
        ):
            assert sentence in str(until(outward, add(outward, source), "failed").error)
    assert hub.gets(WEIGHTS) == []


def test_models_and_images_that_are_gone_end_an_order_with_the_reason(
    pictures: Registry, blip: Path, tmp_path: Path
) -> None:
    folder = save_wd_tagger(tmp_path / "tiny")
    with pictures.working(io_jobs(pictures)):
        model_id = add(pictures, folder)
        until(pictures, model_id, "ready")
    removed = order(pictures, model_id)
    with pictures.database.write() as session:  # as by an older version, or in a restored backup
        session.delete(session.get_one(CaptionModel, model_id))
    with pictures.working(io_jobs(pictures)):
        ended = pictures.until_final(IoJob, removed)
        assert (ended.status, ended.attempt) == ("failed", 1)
        assert ended.error.startswith("This caption model was removed.")
        model_id = add(pictures, folder)
        until(pictures, model_id, "ready")
    damaged = order(pictures, model_id)
    (folder / "model.onnx").write_bytes(b"nothing")
    with pictures.working(io_jobs(pictures)):
        ended = pictures.until_final(IoJob, damaged)
    assert (ended.status, ended.error_code) == ("failed", "provider")
    assert ended.error.startswith("“tiny” cannot be opened:")


def test_an_order_beside_a_training_is_carried_out_on_the_cpu(
    pictures: Registry, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioner, "COMMAND", STAND_IN)
    on_gpu = replace(pictures, settings=pictures.settings.model_copy(update={"device": "cuda"}))
    with on_gpu.working(io_jobs(on_gpu)):
        model_id = add(on_gpu, blip)
        until(on_gpu, model_id, "ready")
        run = on_gpu.new_run()
        assert on_gpu.until_final(IoJob, order(on_gpu, model_id)).status == "succeeded"
        assert [row.caption for row in on_gpu.rows(CaptionProposal)] == ["on cpu"] * 4
        on_gpu.cancel(Run, run)
        assert on_gpu.until_final(IoJob, order(on_gpu, model_id)).status == "succeeded"
    newest = on_gpu.rows(CaptionProposal, state="proposed")
    assert [row.caption for row in newest] == ["on cuda"] * 4


@pytest.mark.skipif(sys.platform != "linux", reason="forks its processes")
def test_a_killed_order_goes_on_and_a_canceled_one_ends_in_mid_caption(
    pictures: Registry, blip: Path
) -> None:
    """The processes of an io worker: one with the job, and one of its own with the model.

    The model is a stand-in that takes its time; `test_captioner.py` has a real one in its process.
    """
    with pictures.working(limited(pictures, SLOWLY)):
        model_id = add(pictures, blip)
        until(pictures, model_id, "ready")
        killed = order(pictures, model_id)
        wait_for(lambda: pictures.rows(CaptionProposal))
        (model,) = model_processes()
        (client,) = job_processes()
        for process in (*client.children(), client):
            if process != model:
                process.kill()
        assert pictures.until_final(IoJob, killed).status == "succeeded"
        assert pictures.row(IoJob, killed).attempt == 2
        wait_for(lambda: not model.is_running() or model.status() == psutil.STATUS_ZOMBIE)
        assert len(pictures.rows(CaptionProposal, job_id=killed)) == 4

        canceled = order(pictures, model_id)
        wait_for(lambda: pictures.rows(CaptionProposal, job_id=canceled))
        (model,) = model_processes()
        model.suspend()  # it is in the middle of a caption, or will be
        pictures.cancel(IoJob, canceled)
        assert pictures.until_final(IoJob, canceled).status == "canceled"
        assert pictures.rows(CaptionProposal, job_id=canceled)
        wait_for(lambda: model_processes() == [])
