"""The work of the io worker: looks at bases, writes downloads, takes in LoRA files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from app.registry.adapters import service as adapters
from app.registry.adapters.service import AdapterChange
from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.jobs import service as jobs
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from app.web.adapters import page_view
from tests.conftest import embedded_info
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import Registry
from worker.core import starter
from worker.core.families.family import Component
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.file_names import file_name
from worker.core.lora_files.reading import read_adapter
from worker.core.safetensors_header import with_metadata
from worker.core.words import FileFormat, WeightDtype
from worker.runtime import export_jobs
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_loop import JobLoop


@pytest.fixture
def loop(trained: TrainedRegistry) -> Iterator[JobLoop]:
    """A loop of io jobs at work on the registry with a trained run."""
    registry = trained.registry
    work = IoJobs(registry.settings, registry.database, registry.store)
    with registry.working(work) as opened:
        yield opened


def version_of(trained: TrainedRegistry) -> AdapterVersion:
    run = trained.registry.row(Run, trained.run_id)
    version: AdapterVersion = trained.registry.row(AdapterVersion, run.adapter_version_id)
    return version


def bring_in(registry: Registry, path: Path, name: str = "my style.safetensors") -> IoJob:
    blob = registry.store.put_file(path)
    with registry.database.write() as session:
        job = adapters.order_import(session, sha256=blob.sha256, filename=name)
    done: IoJob = registry.until_final(IoJob, job.key)
    return done


def test_a_base_is_looked_at_and_can_then_be_used(trained: TrainedRegistry, loop: JobLoop) -> None:
    registry = trained.registry
    with registry.database.write() as session:
        base = added_models.add_path(session, base_models.BASE_MODELS, str(starter.PATH))
    (job,) = registry.rows(IoJob, kind="inspect_base", subject_id=base.key)
    assert registry.until_final(IoJob, job.key).status == "succeeded"
    found = registry.row(BaseModel, base.key)
    assert (found.status, found.family) == ("ready", "sd1")
    assert found.resolution == embedded_info().resolution
    assert found.parameters["unet"] > 100_000
    assert found.fingerprint == registry.row(BaseModel, registry.base_id).fingerprint


def test_a_folder_that_is_no_base_fails_with_the_reason(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    registry = trained.registry
    with registry.database.write() as session:
        base = added_models.add_path(session, base_models.BASE_MODELS, str(tmp_path))
    (job,) = registry.rows(IoJob, kind="inspect_base", subject_id=base.key)
    done = registry.until_final(IoJob, job.key)
    found = registry.row(BaseModel, base.key)
    assert (done.status, found.status) == ("failed", "failed")
    assert (
        found.error
        == done.error
        == "The base model is incomplete: it has no model_index.json. Download it again."
    )


def test_a_bundle_is_written_when_it_is_asked_for(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    with registry.database.write() as session:
        job = adapters.order_file(
            session,
            version.key,
            ExportAdapterArgs(format=FileFormat.BUNDLE, dtype=WeightDtype.BF16),
        )
    done = registry.until_final(IoJob, job.key)
    assert (done.status, done.error) == ("succeeded", None)
    (file,) = registry.rows(AdapterFile, version_id=version.key, format="bundle")
    assert (file.dtype, file.sha256) == ("bf16", done.result["sha256"])
    with zipfile.ZipFile(registry.store.local_path(file.sha256, tmp_path)) as bundle:
        assert set(bundle.namelist()) == {
            "chalk-board-v1.safetensors",
            "chalk-board-v1.json",
            "chalk-board-v1.png",
        }


def test_the_prompt_tag_on_the_page_names_every_file_of_a_version(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    with registry.database.write() as session:
        adapter = adapters.get_adapter(session, version.adapter_id)
        view = page_view.adapter_view(session, adapter.slug, version.version)
        job = adapters.order_file(
            session,
            version.key,
            ExportAdapterArgs(format=FileFormat.BUNDLE, dtype=WeightDtype.FP16),
        )
    registry.until_final(IoJob, job.key)
    (tag,) = (text for title, text in view.snippets if "A1111" in title)
    name = tag.removeprefix("<lora:").partition(":")[0]
    inner_name = file_name(adapter.slug, version.version)
    assert f"{name}.safetensors" == inner_name
    files = {row.format: row for row in registry.rows(AdapterFile, version_id=version.key)}
    with zipfile.ZipFile(registry.store.local_path(files["bundle"].sha256, tmp_path)) as bundle:
        inside = bundle.extract(inner_name, tmp_path / "bundle")
    single = registry.store.local_path(files["kohya"].sha256, tmp_path)
    for path in (single, inside):
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["ss_output_name"] == name


def test_a_license_set_after_the_training_is_in_the_next_download_and_on_the_hub(
    trained: TrainedRegistry, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    kohya = (version.key, adapters.USUAL_FILE)
    with registry.database.read() as session:
        first = adapters.find_file(session, *kohya)
    assert first is not None  # what the trainer wrote is what the registry says
    for license in ("CC-BY-4.0", ""):
        with registry.database.write() as session:
            change = AdapterChange(license=license)
            adapters.change_adapter(session, version.adapter_id, change)
            assert adapters.find_file(session, *kohya) is None
        new = export_jobs.download(registry.io_work(tmp_path), *kohya)
        with safe_open(registry.store.local_path(new.sha256, tmp_path), framework="pt") as file:
            assert file.metadata().get("modelspec.license", "") == license
        with registry.database.read() as session:
            row = adapters.find_file(session, *kohya)
        assert row is not None
        assert (row.id, row.sha256) == (first.id, new.sha256)
    assert export_jobs.download(registry.io_work(tmp_path), *kohya) == new


def test_our_own_download_comes_back_as_the_adapter_it_is(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    (kohya,) = registry.rows(AdapterFile, version_id=version.key, format="kohya")
    done = bring_in(registry, registry.store.local_path(kohya.sha256, tmp_path))
    assert (done.status, done.error) == ("succeeded", None)
    assert done.result == {"adapter_id": version.adapter_id, "version": 1, "duplicate": True}


def test_our_own_download_with_another_header_is_still_that_adapter(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    (kohya,) = registry.rows(AdapterFile, version_id=version.key, format="kohya")
    content = registry.store.local_path(kohya.sha256, tmp_path).read_bytes()
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(b"".join(with_metadata(content, {"ss_output_name": "someone-elses"})))
    done = bring_in(registry, changed)
    assert (done.status, done.error) == ("succeeded", None)
    assert done.result == {"adapter_id": version.adapter_id, "version": 1, "duplicate": True}


def test_a_foreign_file_becomes_an_adapter_once(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    weights = canonical.load_adapter(registry.store.local_path(version.sha256, tmp_path))
    other = tmp_path / "other.safetensors"
    canonical.save_adapter(LoraAdapter(weights.modules[:4], {"made": "elsewhere"}), other)
    done = bring_in(registry, other, "My (fine) style.safetensors")
    assert (done.status, done.error) == ("succeeded", None)
    adapter = registry.row(Adapter, done.result["adapter_id"])
    assert (adapter.name, adapter.base_family) == ("My (fine) style", "sd1")
    (imported,) = registry.rows(AdapterVersion, adapter_id=adapter.key)
    assert (imported.rank, imported.alpha, imported.run_id) == (2, 2.0, None)
    assert imported.base_model_id == registry.base_id
    kept = read_adapter(registry.store.local_path(imported.sha256, tmp_path))
    assert len(kept.modules) == 4
    again = tmp_path / "again.safetensors"
    canonical.save_adapter(LoraAdapter(weights.modules[:4], {"made": "somewhere else"}), again)
    repeated = bring_in(registry, again)
    assert repeated.result == {"adapter_id": adapter.key, "version": 1, "duplicate": True}


def test_an_adapter_of_another_base_is_refused_with_the_reason(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    module = LoraModule(Component.DENOISER, layer, torch.ones(2, 999), torch.ones(320, 2), 2.0)
    path = tmp_path / "wide.safetensors"
    canonical.save_adapter(LoraAdapter((module,)), path)
    done = bring_in(trained.registry, path)
    assert (done.status, done.error_code) == ("failed", "adapter")
    assert "cross-attention width 999" in done.error
    assert "Choose an adapter for SD 1.x, SD 2.x, SDXL, Z-Image or FLUX.2 klein" in done.error


def test_a_file_that_is_no_adapter_is_refused_with_the_reason(
    trained: TrainedRegistry, loop: JobLoop, tmp_path: Path
) -> None:
    path = tmp_path / "no.safetensors"
    path.write_bytes(b"\x80\x02this is a pickle")
    done = bring_in(trained.registry, path)
    assert (done.status, done.error_code) == ("failed", "adapter")
    assert "Only .safetensors files are accepted" in done.error


def test_an_unknown_kind_of_job_fails_and_is_not_tried_again(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    with trained.registry.database.write() as session:
        job = jobs.enqueue(session, IoJob(kind="dance"))
    done = trained.registry.until_final(IoJob, job.key)
    assert (done.status, done.error_code, done.attempt) == ("failed", "unknown_kind", 1)
