"""Today's workers run the jobs that commit 57f004e queued, and read the file that it exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from safetensors.torch import load_file, save_file

from app.registry.adapters import service as adapters
from app.registry.adapters.models import Adapter, AdapterFile, AdapterVersion
from app.registry.base_models.models import BaseModel
from app.registry.jobs.kinds import JobKind
from app.registry.jobs.models import LONG_KINDS, IoJob
from app.registry.renders.models import Render
from app.registry.runs.models import Checkpoint, Run, Sample
from app.registry.tables import JOB_TABLES
from tests.compat.conftest import (
    CONFIG_KEY,
    RENAMED,
    OldData,
    assert_holds,
    metadata_of,
    open_copy,
    open_folder,
    renamed,
)
from tests.fake_hub import WRITE, Hub, open_hub
from tests.worker.runtime.trainer_server import TrainerServer
from worker.core import starter
from worker.core.words import FileFormat, WeightDtype
from worker.runtime.io_jobs import IoJobs
from worker.runtime.render_jobs import RenderJobs
from worker.runtime.train_jobs import TrainJobs

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module")
def processed(
    archive: Path, expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OldData]:
    """The data folder after today's io worker ran its queued jobs, with a fake Hub."""
    folder = tmp_path_factory.mktemp("processed")
    add_base_models(folder)
    with open_hub() as hub:
        fill_hub(hub, archive)
        options = {"hub_endpoint": hub.url, "hub_token": SecretStr("good")}
        for opened in open_copy(archive, expected, folder, **options):
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("HF_TOKEN", raising=False)  # no login of this machine
                patch.setenv("HF_HOME", str(folder / "hf"))
                patch.setenv("HF_HUB_OFFLINE", "1")  # as in every worker
                order_download_again(opened)
                opened.run_queued(IoJobs)
            yield opened


def order_download_again(data: OldData) -> None:
    """Queue an export of the download with tags, as if it had not been written."""
    usual = (FileFormat.KOHYA, WeightDtype.FP16)
    with data.state.database.write() as session:
        file = adapters.find_file(session, 1, *usual, with_tags=True)
        assert file is not None
        session.delete(file)
        adapters.order_file(session, 1, *usual, with_tags=True)


def add_base_models(folder: Path) -> None:
    """Create the base models whose paths the registry holds: one tuned, one as shipped."""
    (folder / "second").symlink_to(starter.PATH)
    tuned = folder / "tuned"
    tuned.mkdir()
    for part in starter.PATH.iterdir():
        if part.name != "unet":
            (tuned / part.name).symlink_to(part)
    (tuned / "unet").mkdir()
    shutil.copy(starter.PATH / "unet" / "config.json", tuned / "unet")
    tensors = load_file(starter.PATH / UNET)
    tensors[LAYER] = tensors[LAYER] + 0.01
    save_file(tensors, tuned / UNET)


def fill_hub(hub: Hub, archive: Path) -> None:
    """Add the repositories that the queued jobs read, and a token that may write."""
    hub.tokens["good"] = WRITE
    hub.add_folder("acme/tiny", starter.PATH)
    card = b"---\nlicense: mit\ninstance_prompt: hrbr\n---\n# Ink\n"
    weights = (archive / "export.safetensors").read_bytes()
    hub.add("acme/ink", {"ink.safetensors": weights, "README.md": card})


def jobs_of(data: OldData, kind: str) -> list[IoJob]:
    """The jobs of a kind that were queued in the old data folder, as they are now."""
    waited = [job["id"] for job in data.expected["queued"]["io_job"] if job["kind"] == kind]
    return [data.row(IoJob, key) for key in waited]


def test_the_old_data_has_a_queued_job_of_every_kind(expected: dict[str, Any]) -> None:
    queued = expected["queued"]
    assert {table: len(queued[table]) for table in queued} == {"run": 2, "render": 2, "io_job": 15}
    assert {table.__tablename__ for table in JOB_TABLES} == queued.keys()
    newer = {
        JobKind.SCALE_ADAPTER,
        JobKind.CAPTION_IMAGES,
        JobKind.DOWNLOAD_CAPTION_MODEL,
    }
    assert {*LONG_KINDS, "inspect_base", "export_adapter", "import_adapter"} - newer == {
        job["kind"] for job in queued["io_job"]
    }


def test_every_queued_io_job_ends_as_it_would_have(processed: OldData) -> None:
    waited = [processed.row(IoJob, job["id"]) for job in processed.expected["queued"]["io_job"]]
    bad = {row.id: row.error for row in waited if row.status != "succeeded"}
    # the starter's autoencoder fits no single file, then as now
    (single,) = (row.id for row in waited if row.args.get("keep") == "download")
    assert bad.keys() == {single}
    assert "which a single file of Stable Diffusion cannot contain" in bad[single]
    assert {row.status for row in processed.rows(IoJob)} == {"succeeded", "failed"}
    assert len([row for row in processed.rows(IoJob) if row.status == "failed"]) == 1


def test_queued_exports_keep_format_and_precision(processed: OldData) -> None:
    bundle, full = jobs_of(processed, "export_adapter")
    (written,) = processed.rows(AdapterFile, sha256=bundle.result["sha256"])
    assert (written.version_id, written.format, written.dtype) == (1, "bundle", "bf16")
    assert written.with_tags
    (written,) = processed.rows(AdapterFile, sha256=full.result["sha256"])
    assert (written.version_id, written.format, written.dtype) == (2, "kohya", "fp32")
    assert not written.with_tags


def test_queued_imports_keep_sidecars_base_and_adapter(processed: OldData) -> None:
    own, beside = jobs_of(processed, "import_adapter")
    chalk = processed.get(f"/adapters/{own.result['adapter_id']}")
    assert (chalk["name"], chalk["trigger_words"]) == ("chalk", ["chlk"])
    assert chalk[RENAMED.get("licence", "licence")] == "MIT"
    assert chalk["base_model_id"] == 1
    assert processed.client.get(chalk["cover_url"]).status_code == 200
    assert (beside.result["adapter_id"], beside.result["version"]) == (2, 2)


def test_queued_merges_keep_weights_and_method(processed: OldData) -> None:
    for job, name, rank in zip(
        jobs_of(processed, "merge_adapters"), ("Harbor ink", "Harbor ties"), (4, 1), strict=True
    ):
        adapter = processed.get(f"/adapters/{job.result['adapter_id']}")
        assert (adapter["name"], adapter["rank"]) == (name, rank)
        assert adapter["trigger_words"] == ["hrbr", "harbour light", "inkwsh", "ink"]
        (version,) = processed.rows(AdapterVersion, adapter_id=adapter["id"])
        parts = version.details["made"]["parts"]
        weights = [(part["weight"], part["text_encoder_weight"]) for part in parts]
        assert weights == [(0.5, None), (1.5, 0.0)]
        assert version.details["made"]["density"] == job.args["density"]


def test_a_queued_resize_makes_the_next_version(processed: OldData) -> None:
    (job,) = jobs_of(processed, "resize_adapter")
    assert (job.result["adapter_id"], job.result["version"]) == (1, 2)
    _, version = processed.rows(AdapterVersion, adapter_id=1)
    assert (version.rank, version.details["made"]["rank_before"]) == (1, 2)
    with processed.state.database.read() as session:  # older versions' downloads are current still
        file = adapters.find_file(session, 1, FileFormat.KOHYA, WeightDtype.FP16)
    assert file is not None


def test_a_queued_fusion_makes_a_base(processed: OldData) -> None:
    kept, _ = jobs_of(processed, "fuse_adapter")
    base = processed.row(BaseModel, kept.result["base_model_id"])
    assert (base.name, base.status, base.family) == ("Harbor base", "ready", "sd1")
    assert kept.result["layers"] > 4
    assert (Path(base.source) / "model_index.json").is_file()


def test_a_queued_extraction_compares_the_two_bases(processed: OldData) -> None:
    (job,) = jobs_of(processed, "extract_adapter")
    (version,) = processed.rows(AdapterVersion, adapter_id=job.result["adapter_id"])
    made = version.details["made"]
    assert (made["base"], made["tuned"], version.rank) == ("starter", "tuned", 1)
    assert processed.row(Adapter, version.adapter_id).name == "Tuned apart"


def test_a_queued_inspection_finds_the_fingerprint_that_was_found(processed: OldData) -> None:
    (job,) = jobs_of(processed, "inspect_base")
    second, starter = processed.row(BaseModel, job.subject_id), processed.row(BaseModel, 1)
    assert (second.name, second.status) == ("second", "ready")
    assert second.fingerprint == starter.fingerprint
    assert second.parameters == starter.parameters


def test_a_queued_download_of_a_base_keeps_its_source(processed: OldData) -> None:
    (job,) = jobs_of(processed, "download_base")
    base = processed.row(BaseModel, job.subject_id)
    assert (base.name, base.status, base.source) == ("tiny", "ready", "hf://acme/tiny@main")
    assert Path(base.local_path).is_relative_to(processed.state.settings.hub_models / "acme--tiny")


def test_a_queued_hub_import_fetches_and_imports_the_file(processed: OldData) -> None:
    (job,) = jobs_of(processed, "fetch_hub_adapter")
    checked = processed.row(IoJob, job.result["import_id"])
    assert checked.args["filename"] == "ink.safetensors"
    assert checked.result == {"adapter_id": 1, "version": 1, "duplicate": True}


def test_a_queued_publication_keeps_its_repository(processed: OldData) -> None:
    (job,) = jobs_of(processed, "publish_adapter")
    assert (job.result["repo"], job.result["private"]) == ("ada/harbor", True)
    (row,) = processed.get("/adapters/1/publications")
    assert (row["repo"], row["status"], row["version"]) == ("ada/harbor", "succeeded", 1)


def test_a_queued_sweep_counts_what_it_deletes(processed: OldData) -> None:
    (job,) = jobs_of(processed, "sweep")
    assert job.result.keys() == {"files", "size_bytes"}


def test_a_queued_render_and_its_twin_are_generated(own_copy: OldData) -> None:
    own_copy.run_queued(RenderJobs)
    twin, render = own_copy.row(Render, 3), own_copy.row(Render, 4)
    assert [(row.status, row.error) for row in (twin, render)] == [("succeeded", None)] * 2
    assert render.twin_id == twin.id
    shown = [own_copy.get(f"/renders/{row.id}")["images"] for row in (twin, render)]
    contents = [own_copy.client.get(images[0]["url"]).content for images in shown]
    assert contents[0] != contents[1]
    assert b"<lora:harbor-light-v1:0.8>" in contents[1]


class OneTraining(TrainJobs):
    """Trains runs without starting a process for the next one."""

    def warm_next(self, model: Path | None) -> None:
        """There is no next one."""


def test_a_queued_run_resumes_from_the_old_checkpoint(
    own_copy: OldData, trainers: TrainerServer
) -> None:
    assert own_copy.client.post("/api/v1/runs/2/cancel").is_success  # it is as long as a real one
    own_copy.run_queued(partial(OneTraining, command=trainers.command))
    run = own_copy.row(Run, 3)
    assert (run.status, run.error, run.error_trace) == ("succeeded", None, None)
    assert (run.parent_id, run.step, run.total_steps) == (1, 6, 6)
    beside = RENAMED.get("regularisation_version_id", "regularisation_version_id")
    assert getattr(run, beside) == getattr(own_copy.row(Run, 1), beside) == 2
    assert own_copy.get("/runs/3/metrics")["series"]["loss"]["steps"] == [5, 6]
    assert [row.step for row in own_copy.rows(Checkpoint, run_id=3)] == [6]
    assert [row.step for row in own_copy.rows(Sample, run_id=3)][-1] == 6
    version = own_copy.row(AdapterVersion, run.adapter_version_id)
    assert (version.adapter_id, version.version) == (1, 2)


# the file


def test_an_imported_file_keeps_what_the_old_code_read(
    archive: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    with closing(open_folder(tmp_path, expected)) as opened:
        data = next(opened)
        with data.state.database.write() as session:
            blob = data.state.store.put_file(archive / "export.safetensors")
            name = "export.safetensors"
            key = adapters.order_import(session, sha256=blob.sha256, filename=name).key
        data.run_queued(IoJobs)
        job = data.row(IoJob, key)
        assert (job.status, job.error) == ("succeeded", None)
        now, old = data.get("/adapters/1"), dict(expected["imported"])
        assert old.pop("cover_url")
        assert data.client.get(now["cover_url"]).status_code == 200
        assert_holds(now, renamed(old))


def test_an_export_of_today_equals_the_old_one(archive: Path, processed: OldData) -> None:
    (row,) = processed.rows(AdapterFile, version_id=1, format="kohya", with_tags=True)
    now_path = processed.state.store.local_path(row.sha256, processed.folder)
    old_path = archive / "export.safetensors"
    now, old = metadata_of(now_path), metadata_of(old_path)
    assert old == processed.expected["metadata"]
    assert_holds(json.loads(now.pop(CONFIG_KEY)), renamed(json.loads(old.pop(CONFIG_KEY))))
    assert_holds(now, renamed(old))
    now_tensors, old_tensors = load_file(now_path), load_file(old_path)
    assert now_tensors.keys() == old_tensors.keys()
    assert all(now_tensors[name].equal(old_tensors[name]) for name in old_tensors)
