"""Merge, resize, fuse and extract as io jobs: from the order to what the registry holds then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import ImageChops

from app.registry.adapters import service, tools, usual_weight
from app.registry.adapters.tools import FuseOutput
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.job_kinds.kinds import ResizeAdapterArgs, ScaleAdapterArgs
from app.registry.jobs.service import LostLease
from app.registry.renders import tool_images
from app.registry.runs import checkpoints
from app.registry.runs.checkpoints import order_average
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from tests.fake_workers import weighted
from tests.worker.bases.tiny_models import save_sd15
from tests.worker.lora_files.random_adapters import random_adapter
from tests.worker.runtime.checkpoint_rows import add_checkpoints
from tests.worker.runtime.job_loops import Registry, wait_for
from worker.core import starter
from worker.core.bases.load import load_base
from worker.core.inference.config import BlockWeights, RenderConfig
from worker.core.inference.merge import MergedWeights
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files import canonical
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
from worker.core.words import FusedDtype, FuseLayout, MergeMethod
from worker.runtime import tool_jobs
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_loop import JobLoop
from worker.runtime.job_progress import IoWork, JobProgress
from worker.runtime.outages import patience


@pytest.fixture
def loop(registry: Registry) -> Iterator[JobLoop]:
    """A loop of io jobs at work on an empty registry."""
    with registry.working(work_of(registry)) as opened:
        yield opened


def work_of(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def add(registry: Registry, folder: Path, name: str, seed: int, *, rank: int = 3) -> Adapter:
    """An adapter of the registry for `starter`, with its name as trigger word."""
    with BaseCheckpoint(starter.PATH) as base:
        shapes = dict(sorted(base.target_shapes.items())[::7])
    path = folder / f"{name}.safetensors"
    canonical.save_adapter(random_adapter(shapes, seed=seed, rank=rank), path)
    blob = registry.store.put_file(path)
    new = NewVersion(
        name=name,
        base_family="sd1",
        sha256=blob.sha256,
        size_bytes=blob.size,
        rank=rank,
        alpha=8.0,
        trigger_words=["shared", name.lower()],
        base_model_id=registry.base_id,
        steps=4,  # of those that were planned: it was stopped
        config={"steps": 5},
    )
    with registry.database.write() as session:
        return session.get_one(Adapter, publish(session, new).adapter_id)


def resize(*, rank: int | None = None, energy: float | None = None) -> ResizeAdapterArgs:
    return ResizeAdapterArgs(rank=rank, energy=energy, dynamic=False)


def weights(registry: Registry, result: dict[str, object], folder: Path) -> canonical.LoraAdapter:
    with registry.database.read() as session:
        adapter = service.get_adapter(session, int(str(result["adapter_id"])))
        version = service.get_version(session, adapter, int(str(result["version"])))
    return canonical.load_adapter(registry.store.local_path(version.sha256, folder))


def newest(registry: Registry, adapter: Adapter) -> AdapterVersion:
    return registry.rows(AdapterVersion, adapter_id=adapter.key)[-1]  # type: ignore[no-any-return]


def done(registry: Registry, job: IoJob) -> IoJob:
    ended: IoJob = registry.until_final(IoJob, job.key)
    return ended


def test_a_merge_becomes_an_adapter_that_says_of_what_it_was_made(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    ink, chalk = add(registry, tmp_path, "Ink", 1), add(registry, tmp_path, "Chalk", 2, rank=2)
    parts = [weighted(ink.key, 0.8), weighted(chalk.key, -0.5, 0.25)]
    with registry.database.write() as session:
        job = tools.order_merge(session, "Both", parts)
    ended = done(registry, job)
    assert (ended.status, ended.error) == ("succeeded", None)
    result = ended.result
    assert (result["slug"], result["version"], result["rank_max"]) == ("both", 1, 5)
    assert (result["energy_min"], result["relative_error"]) == (1.0, 0.0)
    merged: Adapter = registry.row(Adapter, result["adapter_id"])
    assert (merged.name, merged.base_family) == ("Both", "sd1")
    assert merged.trigger_words == ["shared", "ink", "chalk"]
    version = newest(registry, merged)
    assert (version.rank, version.alpha, version.base_model_id) == (5, 5.0, registry.base_id)
    made = version.details["made"]
    assert (made["tool"], made["method"]) == ("merge", "linear")
    assert [
        (p["name"], p["version"], p["weight"], p["text_encoder_weight"]) for p in made["parts"]
    ] == [
        ("Ink", 1, 0.8, None),
        ("Chalk", 1, -0.5, 0.25),
    ]
    first, second = (
        {m.key: m for m in weights(registry, {"adapter_id": a.key, "version": 1}, tmp_path).modules}
        for a in (ink, chalk)
    )
    for module in weights(registry, result, tmp_path).modules:
        factor = -0.5 if module.component == "unet" else 0.25
        expected = 0.8 * first[module.key].delta() + factor * second[module.key].delta()
        assert torch.allclose(module.delta(), expected, atol=1e-6)


def test_an_average_of_checkpoints_becomes_the_next_version_of_the_runs_adapter(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    run_id = registry.new_run()
    with registry.database.write() as session:
        add_checkpoints(registry, session, run_id, tmp_path, steps=(2, 4))
        used = checkpoints.use_checkpoint(session, run_id, 2)
        address = checkpoints.address_of(session, run_id)
        job = order_average(session, run_id, [2, 4])
    ended = done(registry, job)
    assert (ended.status, ended.error) == ("succeeded", None)
    result = ended.result
    assert (result["adapter_id"], result["version"]) == (used.adapter.key, 2)
    assert 0 < result["relative_error"] < 1
    version = newest(registry, used.adapter)
    assert (version.rank, version.base_model_id) == (used.version.rank, registry.base_id)
    assert version.details["made"]["tool"] == "average"
    with registry.database.read() as session:
        assert service.get_version(session, used.adapter).version == 1  # the one in use stays
    with registry.database.write() as session:
        images = tool_images.order_images(session, job.key, registry.store)
    shown = [(one.version, one.weight) for side in images.sides for one in side.render.stack]
    assert shown == [(2, 1.0), (4, 1.0), (2, 1.0)]
    first, second = (
        {
            module.key: module.delta()
            for module in weights(
                registry, {"adapter_id": address.key, "version": step}, tmp_path
            ).modules
        }
        for step in (2, 4)
    )
    error = total = 0.0
    for module in weights(registry, result, tmp_path).modules:
        mean = (first[module.key] + second[module.key]) / 2
        error += float((module.delta() - mean).square().sum())
        total += float(mean.square().sum())
    assert (error / total) ** 0.5 == pytest.approx(result["relative_error"], rel=0.01)


def test_a_resize_becomes_a_version_with_the_energy_it_kept(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    ink = add(registry, tmp_path, "Ink", 1, rank=4)
    with registry.database.write() as session:
        usual_weight.set_usual_weight(session, ink.key, 1, 0.6)
        job = tools.order_resize(session, ink.key, resize(rank=2))
    ended = done(registry, job)
    assert (ended.status, ended.error) == ("succeeded", None)
    version = newest(registry, ink)
    assert (version.version, version.rank, version.config) == (2, 2, {"steps": 5})
    assert (version.usual_weight, version.steps) == (0.6, 4)
    with registry.database.read() as session:
        assert service.get_version(session, ink).version == 1  # the one in use stays
    made = version.details["made"]
    assert (made["tool"], made["version"], made["rank_before"]) == ("resize", 1, 4)
    assert 0.4 < made["energy_min"] <= made["energy_mean"] < 1
    assert ended.result["energy_min"] == made["energy_min"]
    assert {m.rank for m in weights(registry, ended.result, tmp_path).modules} == {2}


def test_a_scaled_version_does_what_the_block_weights_did(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    ink = add(registry, tmp_path, "Ink", 1)
    blocks = BlockWeights(input=0.3, middle=0, output=-1.7)
    with registry.database.write() as session:
        job = tools.order_scale(session, ink.key, ScaleAdapterArgs(blocks=blocks, use=True))
    ended = done(registry, job)
    assert (ended.status, ended.error) == ("succeeded", None)
    version = newest(registry, ink)
    assert (version.version, version.rank, version.config) == (2, 3, {"steps": 5})
    made = version.details["made"]
    assert (made["tool"], made["version"], made["blocks"]) == ("scale", 1, blocks.model_dump())
    with registry.database.read() as session:
        assert service.get_version(session, ink).version == 2  # it was asked for
    pipeline = ResidentPipeline.load(starter.PATH)
    wanted = RenderConfig(prompt="red apple", seed=3, steps=4)
    drawn = []
    for number, factors in ((1, blocks.by_part), (2, {})):
        adapter = weights(registry, {"adapter_id": ink.key, "version": number}, tmp_path)
        pipeline.set_adapters([LoadedAdapter(str(number), adapter, 4.0, block_weights=factors)])
        (rendered,) = pipeline.render(wanted)
        drawn.append(rendered.image)
    pipeline.set_adapters([])
    plain = pipeline.render(wanted)[0].image
    for image, low, high in ((drawn[1], 0, 1), (plain, 2, 255)):
        extrema = ImageChops.difference(drawn[0], image).getextrema()
        assert low <= max(most for _, most in extrema) <= high


def test_a_resize_that_makes_nothing_smaller_makes_no_version(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    ink = add(registry, tmp_path, "Ink", 1, rank=4)
    for order in (resize(rank=4), resize(energy=1.0)):
        with registry.database.write() as session:
            job = tools.order_resize(session, ink.key, order)
        ended = done(registry, job)
        assert ended.status == "failed"
        assert str(ended.error).startswith("The result would not be smaller")
    assert newest(registry, ink).version == 1


def test_a_fused_base_is_registered_and_has_the_weights_of_both(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    ink = add(registry, tmp_path, "Ink", 1)
    with registry.database.write() as session:
        parts = [weighted(ink.key, 0.7)]
        job = tools.order_fuse(session, "Inked", parts, dtype=FusedDtype.FP32)
    ended = done(registry, job)
    assert (ended.status, ended.error) == ("succeeded", None)
    row: BaseModel = wait_for(lambda: ready(registry, ended.result["base_model_id"]))
    assert (row.name, row.family) == ("Inked", "sd1")
    assert Path(row.source).parent == registry.settings.data_dir / "fused"
    assert [path.name for path in Path(row.source).parent.iterdir()] == [Path(row.source).name]
    adapter = weights(registry, {"adapter_id": ink.key, "version": 1}, tmp_path)
    expected = load_base(starter.PATH)
    MergedWeights(expected.adaptable()).apply([LoadedAdapter("ink", adapter, 0.7, 0.7)])
    found = load_base(Path(row.source))
    for name, module in found.adaptable().items():
        other = expected.adaptable()[name].state_dict()
        for key, tensor in module.state_dict().items():
            assert torch.allclose(tensor, other[key], atol=1e-7)
    with registry.database.write() as session:
        extract = tools.order_extract(
            session, name="Back", base=registry.base_id, tuned=row.key, rank=3
        )
    back = done(registry, extract)
    assert (back.status, back.error) == ("succeeded", None)
    changes = {m.key: m.delta() for m in weights(registry, back.result, tmp_path).modules}
    assert changes.keys() == {m.key for m in adapter.modules}
    for module in adapter.modules:
        assert torch.allclose(changes[module.key], 0.7 * module.delta(), atol=1e-5)
    assert (
        newest(registry, registry.row(Adapter, back.result["adapter_id"])).details["made"]["tuned"]
        == "Inked"
    )


def ready(registry: Registry, base_id: int) -> BaseModel | None:
    row: BaseModel = registry.row(BaseModel, base_id)
    return row if row.status == "ready" else None


def test_a_single_file_is_kept_for_download(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    with registry.database.write() as session:
        base = added_models.add_path(
            session, base_models.BASE_MODELS, str(save_sd15(tmp_path / "tiny"))
        )
    wait_for(lambda: ready(registry, base.key))
    with BaseCheckpoint(tmp_path / "tiny") as opened:
        shapes = dict(sorted(opened.target_shapes.items())[::50])
    canonical.save_adapter(random_adapter(shapes), tmp_path / "few.safetensors")
    blob = registry.store.put_file(tmp_path / "few.safetensors")
    new = NewVersion("Few", "sd1", blob.sha256, blob.size, 4, 8.0, base_model_id=base.key)
    with registry.database.write() as session:
        adapter_id = publish(session, new).adapter_id
        job = tools.order_fuse(
            session,
            "My base!",
            [weighted(adapter_id)],
            layout=FuseLayout.SINGLE,
            keep=FuseOutput.DOWNLOAD,
        )
    ended = done(registry, job)
    assert (ended.status, ended.error) == ("succeeded", None)
    with registry.database.read() as session:
        sha256, filename = tools.fused_file(session, registry.store, job.key)
    assert filename == "my-base.safetensors"
    folder = registry.settings.data_dir / "fused"
    wait_for(lambda: not list(folder.iterdir()))  # removed after the job has ended
    named = tmp_path / filename
    named.write_bytes(registry.store.local_path(sha256, tmp_path).read_bytes())
    assert load_base(named, components=["unet"]).info.layout == "single_file"


def test_an_adapter_for_another_base_of_the_family_is_refused_in_the_job(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    ink = add(registry, tmp_path, "Ink", 1)
    shapes = {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": (320, 768)}
    canonical.save_adapter(random_adapter(shapes), tmp_path / "real.safetensors")
    blob = registry.store.put_file(tmp_path / "real.safetensors")
    with registry.database.write() as session:
        # not known here, so that only the weights tell
        session.get_one(BaseModel, registry.base_id).parameters = {}
        new = NewVersion("Real", "sd1", blob.sha256, blob.size, 4, 8.0)
        real = publish(session, new).adapter_id
        merge = tools.order_merge(session, "No", [weighted(ink.key), weighted(real)])
        fuse = tools.order_fuse(session, "No", [weighted(real)], base="starter")
    assert "“Ink” and “Real” are for different base models" in str(done(registry, merge).error)
    assert "cross-attention width 768; “starter” has" in str(done(registry, fuse).error)
    assert not any((registry.settings.data_dir / "fused").glob("*"))


def test_an_adapter_deleted_while_its_job_waited_is_reported(
    registry: Registry, tmp_path: Path
) -> None:
    ink, chalk = add(registry, tmp_path, "Ink", 1), add(registry, tmp_path, "Chalk", 2)
    with registry.database.write() as session:
        job = tools.order_merge(session, "Both", [weighted(ink.key), weighted(chalk.key)])
        service.delete_adapter(session, chalk.key)
    with registry.working(work_of(registry)):
        ended = done(registry, job)
    assert (ended.status, ended.attempt) == ("failed", 1)
    assert ended.error == "“Chalk” was deleted while this waited. Restore it, then try again."


def test_a_job_waits_while_the_disk_is_full_and_goes_on_when_there_is_room(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(patience, "LONGEST_SECONDS", 0.2)
    ink = add(registry, tmp_path, "Ink", 1)
    with registry.database.write() as session:
        job = tools.order_resize(session, ink.key, resize(rank=1))
    tried: list[object] = []

    def full(*arguments: object) -> None:
        tried.append(arguments)
        raise OSError(28, "No space left on device")

    def waiting() -> IoJob | None:
        row: IoJob = registry.row(IoJob, job.key)
        return row if row.waits_for and len(tried) > 2 else None

    with monkeypatch.context() as disk:
        disk.setattr(canonical, "save_adapter", full)
        with registry.working(work_of(registry)):
            row = wait_for(waiting)
            assert row.status in ("queued", "running")
            assert "disk is full" in row.waits_for
            assert row.attempt == (row.status == "running")
            disk.undo()
            ended = done(registry, job)
    assert (ended.status, ended.attempt, ended.waits_for) == ("succeeded", 1, None)
    assert newest(registry, ink).version == 2


def test_a_worker_that_ends_gives_its_work_back(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ink, chalk = add(registry, tmp_path, "Ink", 1), add(registry, tmp_path, "Chalk", 2)
    with registry.database.write() as session:
        job = tools.order_merge(session, "Both", [weighted(ink.key), weighted(chalk.key)])
    begun, go_on = threading.Event(), threading.Event()
    told = JobProgress.__call__

    def slowly(progress: JobProgress, at: int, total: int) -> None:
        begun.set()
        assert go_on.wait(60)
        told(progress, at, total)

    monkeypatch.setattr(JobProgress, "__call__", slowly)
    with registry.working(work_of(registry)) as loop:
        assert begun.wait(60)
        loop.request_stop()
        go_on.set()
    row: IoJob = registry.row(IoJob, job.key)
    assert (row.status, row.attempt) == ("queued", 0)
    monkeypatch.undo()
    with registry.working(work_of(registry)):
        assert done(registry, job).status == "succeeded"


def test_what_a_killed_worker_left_is_taken_away_by_the_next(
    registry: Registry, tmp_path: Path
) -> None:
    ink = add(registry, tmp_path, "Ink", 1)
    with registry.database.write() as session:
        job = tools.order_fuse(session, "Inked", [weighted(ink.key)])
    folder = registry.settings.data_dir / "fused"
    left = [
        folder / f"inked-{job.key}-0123abcd",
        folder / f".inked-{job.key}-0123abcd.1f2e3d4c.part",
    ]
    others = [folder / f"inked-{job.key}0-0123abcd", folder / f"inked-{job.key}-9-0123abcd"]
    for path in (*left, *others):
        path.mkdir(parents=True)
        (path / "whole but never told").write_bytes(b"x")
    with registry.working(work_of(registry)):
        ended = done(registry, job)
    assert (ended.status, ended.error) == ("succeeded", None)
    made = Path(registry.row(BaseModel, ended.result["base_model_id"]).source)
    assert {path.name for path in folder.iterdir()} == {path.name for path in (made, *others)}


def test_a_worker_that_wakes_up_after_it_lost_a_fuse_leaves_the_base_of_the_next_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ink = add(registry, tmp_path, "Ink", 1)
    with registry.database.write() as session:
        job = tools.order_fuse(session, "Inked", [weighted(ink.key)])
    works = []
    for owner in "ab":
        scratch = tmp_path / owner
        scratch.mkdir()
        works.append(registry.io_work(scratch, registry.row(IoJob, job.key), owner))

    def run(work: IoWork) -> None:
        with registry.database.write() as session:
            row = session.get_one(IoJob, job.key)
            row.status, row.owner_token = "running", work.lease.claim.token
            session.add(row)
        tool_jobs.run(work)

    told = JobProgress.__call__

    def stalled_in_the_middle(progress: JobProgress, at: int, total: int) -> None:
        if at == 50 and progress._lease is works[0].lease:
            run(works[1])
            works[0].lease.lost.set()
        told(progress, at, total)

    monkeypatch.setattr(JobProgress, "__call__", stalled_in_the_middle)
    with pytest.raises(LostLease):
        run(works[0])
    (made,) = (registry.settings.data_dir / "fused").iterdir()
    row: IoJob = registry.row(IoJob, job.key)
    assert row.status == "succeeded"
    base: BaseModel = registry.row(BaseModel, row.result["base_model_id"])
    assert (base.source, made.name) == (str(made), f"inked-{job.key}-bbbbbbbb")
    assert load_base(made, components=["unet"]).info.family == "sd1"
    with pytest.raises(LostLease):  # and one that wakes up before it began takes nothing away
        tool_jobs.run(replace(works[0], job=row))
    assert made.is_dir()


def test_a_method_with_a_rank_tells_its_error(
    registry: Registry, loop: JobLoop, tmp_path: Path
) -> None:
    ink, chalk = add(registry, tmp_path, "Ink", 1), add(registry, tmp_path, "Chalk", 2)
    parts = [weighted(ink.key), weighted(chalk.key)]
    with registry.database.write() as session:
        orders = [
            tools.order_merge(session, str(method), parts, method=method, rank=2)
            for method in (MergeMethod.SVD, MergeMethod.TIES, MergeMethod.DARE)
        ]
    for order in orders:
        ended = done(registry, order)
        assert (ended.status, ended.error) == ("succeeded", None)
        assert 0 < ended.result["relative_error"] < 1
        assert ended.result["rank_max"] == 2
