"""A download is loaded by the installed diffusers, and drawn with, before it is stored."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from app.registry.adapters import service as adapters
from app.registry.adapters.downloads import refusals
from app.registry.adapters.proofs import checks_of
from app.registry.adapters.service import AdapterChange
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.tables.adapters import AdapterFile, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from tests.worker.bases.tiny_zimage import save_zimage
from tests.worker.lora_files.random_adapters import random_adapter
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import Registry
from worker.core import starter
from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files import canonical
from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.words import FileFormat, WeightDtype
from worker.runtime import write_downloads as downloads
from worker.runtime.io_jobs import IoJobs
from worker.runtime.messages import Export, ExportFile
from worker.runtime.write_downloads import Prover, write_downloads

SD1 = BaseFamily.SD1
EMBEDDED = starter.PATH  # not the small one, where an image has to say something


def metadata(family: BaseFamily) -> AdapterMetadata:
    return AdapterMetadata(
        title="Chalk",
        slug="chalk",
        family=family,
        base_name="starter",
        resolution=64,
        created=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        prediction_type="v_prediction",
        trigger_words=("chalkboard style",),
    )


def write(
    adapter: LoraAdapter,
    folder: Path,
    *forms: FileFormat,
    base: Path | None,
    family: BaseFamily = SD1,
) -> list[ExportFile]:
    canonical.save_adapter(adapter, folder / "canonical.safetensors")
    fp16 = WeightDtype.FP16
    files = [ExportFile(form, fp16, folder / f"{form}.safetensors") for form in forms]
    order = Export(files, metadata(family), base)
    return write_downloads(folder / "canonical.safetensors", order)


@pytest.fixture(scope="module")
def adapter() -> LoraAdapter:
    shapes = Prover(EMBEDDED, SD1, ()).shapes
    return random_adapter(shapes, rank=2, strength=0.02)


@pytest.fixture(scope="module")
def small_adapter(embedded_base: Path) -> LoraAdapter:
    """One for the small base, where an image need not say anything."""
    return random_adapter(Prover(embedded_base, SD1, ()).shapes, rank=2, strength=0.02)


@pytest.fixture(scope="module")
def proved(adapter: LoraAdapter, tmp_path_factory: pytest.TempPathFactory) -> list[ExportFile]:
    """The adapter as a kohya and as a peft file, with their proofs."""
    folder = tmp_path_factory.mktemp("proved")
    return write(adapter, folder, FileFormat.KOHYA, FileFormat.PEFT, base=EMBEDDED)


def test_a_small_base_is_loaded_patched_and_drawn_with(
    proved: list[ExportFile], adapter: LoraAdapter
) -> None:
    _, peft = proved
    for file in proved:
        assert file.problem == ""
        loaded, drawn = file.proof["loaded"], file.proof["drawn"]
        assert (loaded["modules"], loaded["weights"]) == (len(adapter.modules), True)
        assert 1e-5 < loaded["worst_error"] < 2e-3
        assert drawn["prompt"] == "castle, chalkboard style"
        assert drawn["difference"] <= 3
        assert drawn["effect"] > 50  # the picture is not the base's
        assert file.proof["passed"]
    by_name = {result["name"]: result for result in peft.proof["loaders"]}
    assert (by_name["a1111"]["verdict"], by_name["a1111"]["needed"]) == ("unread", False)
    assert by_name["diffusers"]["verdict"] == "right"


def test_a_small_transformer_is_drawn_with(tmp_path: Path) -> None:
    base, family = save_zimage(tmp_path / "z"), BaseFamily.ZIMAGE
    adapter = random_adapter(Prover(base, family, ()).shapes, rank=2, strength=0.5)
    (file,) = write(adapter, tmp_path, FileFormat.KOHYA, base=base, family=family)
    assert (file.problem, file.proof["not_drawn"]) == ("", "")
    assert file.proof["drawn"]["difference"] <= 3 < file.proof["drawn"]["effect"]


def test_a_large_base_is_checked_by_its_shapes(
    small_adapter: LoraAdapter, embedded_base: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(downloads, "MOMENT_BYTES", 0)
    (file,) = write(small_adapter, tmp_path, FileFormat.KOHYA, base=embedded_base)
    assert file.problem == ""
    assert (file.proof["loaded"]["weights"], file.proof["drawn"]) == (False, None)
    assert file.proof["loaded"]["worst_error"] < 2e-3


@pytest.mark.parametrize("family", BaseFamily)
def test_without_its_base_the_familys_published_layers_stand_in(
    family: BaseFamily, tmp_path: Path
) -> None:
    prover = Prover(None, family, ())
    assert dict(prover.shapes).items() >= dict(family_shapes(family)).items()
    chosen = (
        *("attn2.to_k", "1.self_attn.q_proj", "1.self_attn.out_proj"),
        *("layers.3.attention.to_q", "transformer_blocks.3.attn.to_q", "blocks.3.ff.linear_in"),
    )
    adapter = random_adapter(family_shapes(family), rank=1, choose=lambda key: key.endswith(chosen))
    gone = tmp_path / "no-such-base"
    (file,) = write(adapter, tmp_path, FileFormat.KOHYA, base=gone, family=family)
    assert file.problem == ""
    assert file.proof["loaded"]["modules"] >= len(adapter.modules)  # or with those that join them


def test_a_file_that_no_layers_are_known_for_says_that_it_was_not_loaded(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    (kohya,) = write(adapter, tmp_path, FileFormat.KOHYA, base=tmp_path / "gone")
    assert kohya.problem == ""
    assert kohya.proof["loaded"] is None
    assert "Add the base model again" in kohya.proof["not_loaded"]
    said = checks_of(kohya.proof)
    assert any(
        line.startswith("Not loaded by diffusers, only checked by its rule") for line in said
    )


def test_what_diffusers_gets_wrong_is_not_offered(
    small_adapter: LoraAdapter, embedded_base: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    double = tuple(replace(m, alpha=2 * m.alpha) for m in small_adapter.modules)
    measured = downloads.measure_loaded_adapter
    monkeypatch.setattr(  # as if diffusers read every alpha as half of what it is
        downloads,
        "measure_loaded_adapter",
        lambda a, *rest, **more: measured(LoraAdapter(double), *rest, **more),
    )
    (file,) = write(small_adapter, tmp_path, FileFormat.KOHYA, base=embedded_base)
    assert "diffusers 0.42" in file.problem
    assert "error of 0.5; at most 0.002 is accepted" in file.problem
    assert not file.path.exists()


def test_a_picture_that_comes_out_otherwise_is_a_fault(proved: list[ExportFile]) -> None:
    prover = Prover(EMBEDDED, SD1, ())
    file, _ = proved
    other = random_adapter(prover.shapes, rank=2, strength=0.02, seed=1)
    with one_thread():
        prover._generate_references(other)
        found, _, _ = prover._compare_images(Prover(EMBEDDED, SD1, ())._generate_image(), "fp16")
    assert found is not None
    assert found.difference > found.limit
    assert (
        "of 255 levels"
        in downloads._loading_faults(downloads.DiffusersLoad(**file.proof["loaded"]), found, 1)[0]
    )


def test_an_adapter_whose_own_numbers_run_away_is_offered_and_says_so(
    embedded_base: Path, tmp_path: Path
) -> None:
    wild = random_adapter(Prover(embedded_base, SD1, ()).shapes, rank=1, strength=1e4)
    (file,) = write(wild, tmp_path, FileFormat.KOHYA, base=embedded_base)
    assert file.problem == ""
    assert file.proof["drawn"] is None
    assert any(line.startswith("No images were compared") for line in checks_of(file.proof))


def test_a_file_that_draws_nothing_where_the_adapter_does_is_not_offered(
    small_adapter: LoraAdapter, embedded_base: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    draw, own = Prover._generate_image, [2]

    def only_own(prover: Prover, *pipeline: Any) -> Any:
        own[0] -= 1
        return draw(prover, *pipeline) if own[0] >= 0 else None

    monkeypatch.setattr(Prover, "_generate_image", only_own)  # as if the file's numbers ran away
    (file,) = write(small_adapter, tmp_path, FileFormat.KOHYA, base=embedded_base)
    assert "produces NaNs" in file.problem
    assert not file.path.exists()


def version_of(trained: TrainedRegistry) -> AdapterVersion:
    run = trained.registry.row(Run, trained.run_id)
    version: AdapterVersion = trained.registry.row(AdapterVersion, run.adapter_version_id)
    return version


def forget(registry: Registry, *rows: Any) -> None:
    """Take rows away again: the registry is shared by the tests of this folder."""
    with registry.database.write() as session:
        for row in rows:
            session.delete(session.merge(row))


def test_the_downloads_of_a_training_are_proved_before_they_are_there(
    trained: TrainedRegistry,
) -> None:
    files = trained.registry.rows(AdapterFile, version_id=version_of(trained).key, dtype="fp16")
    assert {file.format for file in files} >= {"kohya", "peft"}
    for file in files:
        assert file.proof["passed"]
        assert file.proof["drawn"]["difference"] <= 3
        assert file.proof["read_back"]["tensors"] > 0


def test_numbers_that_do_not_fit_fail_the_order_with_advice(
    trained: TrainedRegistry, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    weights = canonical.load_adapter(registry.store.local_path(version.sha256, tmp_path))
    first = replace(weights.modules[0], up=torch.full_like(weights.modules[0].up, 1e6))
    canonical.save_adapter(LoraAdapter((first, *weights.modules[1:])), tmp_path / "huge")
    blob = registry.store.put_file(tmp_path / "huge")
    with registry.database.write() as session:
        row = AdapterVersion(**version.model_dump(exclude={"id", "version", "sha256"}))
        row.version, row.sha256 = 77, blob.sha256
        session.add(row)
        session.flush()
        key = row.key
        job = adapters.order_file(session, key)
    with registry.working(IoJobs(registry.settings, registry.database, registry.store)):
        done = registry.until_final(IoJob, job.key)
    assert (done.status, done.error_code) == ("failed", "proof")
    assert "Choose fp32" in done.error
    with registry.database.read() as session:
        assert refusals(session, key) == {("kohya", "fp16"): done.error}
    assert registry.rows(AdapterFile, version_id=key) == []
    forget(registry, registry.row(AdapterVersion, key))


def test_notes_and_tags_are_in_a_file_only_when_wished(
    trained: TrainedRegistry, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    private = AdapterChange(notes="For the wedding of Ada.", tags=["ada", "wedding"])
    with registry.database.write() as session:
        adapters.change_adapter(session, version.adapter_id, private)
        job = adapters.order_file(
            session,
            version.key,
            ExportAdapterArgs(format=FileFormat.KOHYA, dtype=WeightDtype.BF16, with_tags=True),
        )
        plain = adapters.order_file(
            session, version.key, ExportAdapterArgs(format=FileFormat.KOHYA, dtype=WeightDtype.BF16)
        )
    assert job.key != plain.key
    with registry.working(IoJobs(registry.settings, registry.database, registry.store)):
        for order in (job, plain):
            assert registry.until_final(IoJob, order.key).status == "succeeded"
    from safetensors import safe_open

    said: dict[bool, dict[str, str]] = {}
    rows = registry.rows(AdapterFile, version_id=version.key, dtype="bf16", format="kohya")
    for row in rows:
        with safe_open(registry.store.local_path(row.sha256, tmp_path), framework="pt") as file:
            said[row.with_tags] = file.metadata()
    assert len(said[True]["ss_tag_frequency"]) > len(said[False].get("ss_tag_frequency", ""))
    assert said[True]["modelspec.description"] == "For the wedding of Ada."
    assert said[True]["modelspec.tags"] == "ada, wedding"
    assert not [key for key, text in said[False].items() if "wedding" in text]
    with registry.database.write() as session:
        adapters.change_adapter(session, version.adapter_id, AdapterChange(notes="", tags=[]))
    forget(registry, *rows)


def test_the_sidecar_in_a_bundle_keeps_the_notes_to_itself(
    trained: TrainedRegistry, tmp_path: Path
) -> None:
    registry, version = trained.registry, version_of(trained)
    with registry.database.write() as session:
        adapters.change_adapter(session, version.adapter_id, AdapterChange(notes="Only mine."))
        bundle_file = ExportAdapterArgs(format=FileFormat.BUNDLE, dtype=WeightDtype.FP16)
        job = adapters.order_file(session, version.key, bundle_file)
    with registry.working(IoJobs(registry.settings, registry.database, registry.store)):
        done = registry.until_final(IoJob, job.key)
    with zipfile.ZipFile(registry.store.local_path(done.result["sha256"], tmp_path)) as bundle:
        (name,) = (name for name in bundle.namelist() if name.endswith(".json"))
        said = json.loads(bundle.read(name))
        everything = b"".join(bundle.read(name) for name in bundle.namelist())
    assert said["description"] == ""
    assert b"Only mine." not in everything
    with registry.database.write() as session:
        adapters.change_adapter(session, version.adapter_id, AdapterChange(notes=""))
    forget(registry, *registry.rows(AdapterFile, version_id=version.key, format="bundle"))
