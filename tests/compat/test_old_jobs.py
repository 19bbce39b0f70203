"""Jobs that commit 57f004e queued are run by today's workers with the arguments it stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.registry.adapters import service as adapters
from app.registry.adapters.models import Adapter, AdapterFile, AdapterVersion
from app.registry.adapters.service import DownloadDtype, DownloadFormat
from app.registry.base_models.models import BaseModel
from app.registry.jobs.models import LONG_KINDS, IoJob
from app.registry.renders.models import Render
from app.registry.runs.models import Checkpoint, Run, Sample
from app.registry.tables import JOB_TABLES
from tests.compat.conftest import RENAMED, OldData, jobs_of
from worker.runtime.render_jobs import Rendering
from worker.runtime.train_jobs import Training


def test_the_old_data_has_a_queued_job_of_every_kind(expected: dict[str, Any]) -> None:
    queued = expected["queued"]
    assert {table: len(queued[table]) for table in queued} == {"run": 2, "render": 2, "io_job": 15}
    assert {table.__tablename__ for table in JOB_TABLES} == queued.keys()
    assert {*LONG_KINDS, "inspect_base", "export_adapter", "import_adapter"} == {
        job["kind"] for job in queued["io_job"]
    }


def test_every_queued_io_job_ends_as_it_would_have(processed: OldData) -> None:
    waited = [processed.row(IoJob, job["id"]) for job in processed.expected["queued"]["io_job"]]
    bad = {row.id: row.error for row in waited if row.status != "succeeded"}
    # the starter's autoencoder fits no single file, then as now
    (single,) = (row.id for row in waited if row.args.get("keep") == "download")
    assert bad.keys() == {single}
    assert "which single files of Stable Diffusion cannot hold" in bad[single]
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
        file = adapters.find_file(session, 1, DownloadFormat.KOHYA, DownloadDtype.FP16)
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
    own_copy.run_queued(Rendering)
    twin, render = own_copy.row(Render, 3), own_copy.row(Render, 4)
    assert [(row.status, row.error) for row in (twin, render)] == [("succeeded", None)] * 2
    assert render.twin_id == twin.id
    shown = [own_copy.get(f"/renders/{row.id}")["images"] for row in (twin, render)]
    contents = [own_copy.client.get(images[0]["url"]).content for images in shown]
    assert contents[0] != contents[1]
    assert b"<lora:harbor-light-v1:0.8>" in contents[1]


class OneTraining(Training):
    """Trains runs without starting a process for the next one."""

    def warm_next(self, model: Path | None) -> None:
        """There is no next one."""


def test_a_queued_run_resumes_from_the_old_checkpoint(own_copy: OldData) -> None:
    assert own_copy.client.post("/api/v1/runs/2/cancel").is_success  # it is as long as a real one
    own_copy.run_queued(OneTraining)
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
