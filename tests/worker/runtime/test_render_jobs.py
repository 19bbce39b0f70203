"""Renders, drawn by a real pipeline with a trained adapter."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from PIL import Image, ImageChops
from sqlmodel import Session, select

from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.blobs import findings
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.renders import listing, ordered_covers, results, sources
from app.registry.renders import service as playground
from app.registry.renders.requests import RenderRequest
from app.registry.renders.sources import FoundSource, SourceImage
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, BasePrecision, ModelStatus
from app.registry.tables.blobs import FileProblem, Thumbnail
from app.registry.tables.renders import Render, RenderImage
from app.registry.tables.runs import Run
from tests.worker.bases.tiny_models import save_two_blocks
from tests.worker.runtime.conftest import TrainedRegistry
from tests.worker.runtime.job_loops import SIDE, Registry
from worker.core.bases.inspect import inspect_base
from worker.core.families.family import Component
from worker.core.inference import precision
from worker.core.inference.config import BlockWeights
from worker.core.inference.infotext import parse_infotext
from worker.core.inference.precision import PrecisionChoice
from worker.core.lora_files.canonical import LoraAdapter, LoraModule, save_adapter
from worker.core.words import RenderPrecision
from worker.runtime.job_loop import JobLoop
from worker.runtime.lease import Lease
from worker.runtime.render_jobs import RenderJobs
from worker.runtime.renders import previews, warm_pipelines


@pytest.fixture(scope="module")
def render_jobs(trained: TrainedRegistry) -> Iterator[RenderJobs]:
    """The render jobs, warm."""
    registry = trained.registry
    work = RenderJobs(registry.settings, registry.database, registry.store)
    work.prepare()
    yield work
    work.close()


class SharedWork:
    """Render jobs whose pipeline is warm and stays so for the next test."""

    table = Render
    device = "CPU"
    memory_bytes = None

    def __init__(self, render_jobs: RenderJobs) -> None:
        self.run = render_jobs.run
        self.machine = render_jobs.machine

    def prepare(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def loop(trained: TrainedRegistry, render_jobs: RenderJobs) -> Iterator[JobLoop]:
    """A loop of render jobs at work, with the pipeline of the other tests."""
    with trained.registry.working(SharedWork(render_jobs)) as opened:
        yield opened


def ask(registry: Registry, **values: Any) -> int:
    usual = {"prompt": "a red apple", "seed": 7, "steps": 3, "width": SIDE, "height": SIDE}
    request = RenderRequest(**(usual | values))
    with registry.database.write() as session:
        return playground.create_render(session, request, registry.store).key


def chalk(trained: TrainedRegistry, weight: float = 1.0, **weights: float) -> WeightedAdapter:
    run = trained.registry.row(Run, trained.run_id)
    version = trained.registry.row(AdapterVersion, run.adapter_version_id)
    return WeightedAdapter(adapter_id=version.adapter_id, weight=weight, **weights)


def pictures(registry: Registry, render_id: int) -> list[Image.Image]:
    images = registry.rows(RenderImage, render_id=render_id)
    assert [image.index for image in images] == list(range(len(images)))
    opened = []
    for image in images:
        with registry.store.open(image.sha256) as blob:
            opened.append(Image.open(io.BytesIO(blob.read())))
    return opened


def test_a_render_has_its_sampler_and_says_what_was_no_emphasis(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    registry = trained.registry
    small = {"width": SIDE // 2, "height": SIDE // 2}
    asked = ask(registry, prompt="a ((red apple", sampler="dpmpp_2m_sde_karras", **small)
    render = registry.until_final(Render, asked)
    assert (render.status, render.sampler) == ("succeeded", "dpmpp_2m_sde_karras")
    assert render.note.startswith(f"{SIDE // 2} × {SIDE // 2} is far from the {SIDE} × {SIDE}")
    assert "“(” in the prompt has no counterpart" in render.note
    (image,) = pictures(registry, render.key)
    assert "Sampler: DPM++ 2M SDE, Schedule type: Karras" in image.info["parameters"]
    assert json.loads(image.info["brushwork"])["sampler"] == "dpmpp_2m_sde_karras"


def test_a_render_gives_pictures_that_say_how_they_were_drawn(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    registry = trained.registry
    blocks = BlockWeights(input=0.25, output=-1)
    used = chalk(trained, 0.5).model_copy(update={"block_weights": blocks})
    key = ask(registry, count=2, negative_prompt="blurry", adapters=[used], guidance=3.0)
    render = registry.until_final(Render, key)
    assert (render.status, render.error, render.from_cache) == ("succeeded", None, False)
    assert render.progress == 6
    assert render.seconds > 0
    first, second = pictures(registry, key)
    assert first.size == (SIDE, SIDE)
    assert first.tobytes() != second.tobytes()
    prompt, negative, facts = first.info["parameters"].split("\n")
    assert prompt == "a red apple <lora:chalk-board-v1:0.5>"
    assert negative == "Negative prompt: blurry"
    drawn = f"Steps: 3, Sampler: DDIM, CFG scale: 3.0, Seed: 7, Size: {SIDE}x{SIDE}, Model hash: "
    assert drawn in facts
    assert 'Lora hashes: "chalk-board-v1: ' in facts
    assert 'Lora block weights: "chalk-board-v1: 0.25 1 -1"' in facts
    assert parse_infotext(first.info["parameters"]).block_factors == {
        "chalk-board-v1": (0.25, 1.0, -1.0)
    }
    assert "Seed: 8," in second.info["parameters"]
    assert ", Precision: fp32, " in facts
    written = json.loads(second.info["brushwork"])
    assert written["adapters"][0]["block_weights"] == blocks.model_dump()
    assert (written["seed"], written["precision"], render.precision) == (8, "fp32", "fp32")
    for image, whole in zip(
        registry.rows(RenderImage, render_id=key), (first, second), strict=True
    ):
        thumbnail = registry.row(Thumbnail, image.sha256)  # stored with the image
        with registry.store.open(thumbnail.small_sha256) as blob:
            small = Image.open(blob).convert("RGB")
        assert small.tobytes() == whole.tobytes()  # 64 pixels: lossless
        assert thumbnail.large_sha256 == thumbnail.small_sha256


def test_an_image_starts_from_another_one(trained: TrainedRegistry, loop: JobLoop) -> None:
    registry = trained.registry
    original = Image.new("RGBA", (SIDE, SIDE), (200, 30, 40, 255))
    original.putpixel((0, 0), (0, 0, 0, 0))
    content = io.BytesIO()
    original.save(content, "PNG")
    sha256 = registry.store.put_bytes(content.getvalue()).sha256
    with registry.database.write() as session:
        sources.remember(session, FoundSource(sha256, SIDE, SIDE, ""))
    start = {"source": SourceImage(sha256=sha256), "steps": 4}
    wanted = [
        start | {"strength": 0.25, "adapters": [chalk(trained)], "twin": True},
        start | {"strength": 0.0},
        start | {"strength": 1.0, "adapters": [chalk(trained)], "weights": [[0.0], [0.5]]},
    ]
    little, kept, strip = (registry.until_final(Render, ask(registry, **one)) for one in wanted)
    twin = registry.until_final(Render, little.twin_id)
    assert [row.status for row in (little, kept, strip, twin)] == ["succeeded"] * 4
    assert [row.progress for row in (little, kept, strip, twin)] == [1, 0, 8, 1]
    assert len(pictures(registry, strip.key)) == 2
    (image,) = pictures(registry, little.key)
    assert ", Denoising strength: 0.25, " in image.info["parameters"]
    found = parse_infotext(image.info["parameters"])
    assert (found.strength, found.source_sha256) == (0.25, sha256)
    assert json.loads(image.info["brushwork"])["strength"] == 0.25
    registry.store.delete(sha256)
    gone = registry.until_final(Render, ask(registry, **start, seed=9))
    assert gone.status == "failed"
    assert "starts from is missing" in gone.error


def test_the_precision_of_a_large_base_is_chosen_once_and_stored(
    trained: TrainedRegistry, render_jobs: RenderJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, timed = trained.registry, []

    def decide(*_: float) -> PrecisionChoice:
        timed.append(1)
        return PrecisionChoice(RenderPrecision.BF16, 3.74, 1.25, 0.99)

    monkeypatch.setattr(warm_pipelines, "is_small", lambda _: False)
    monkeypatch.setattr(precision, "_has_bf16_kernels", lambda: True)
    monkeypatch.setattr(precision, "decide", decide)
    exact = generate(registry, render_jobs, prompt="a red kite")  # chosen when the worker started
    forget_choices(registry)
    short = [generate(registry, render_jobs, prompt="a red kite") for _ in range(2)]
    other = RenderJobs(registry.settings, registry.database, registry.store)  # after a restart
    more = generate(registry, other, prompt="a blue kite")
    other.close()
    assert (exact.precision, exact.from_cache) == ("fp32", False)
    assert [(row.precision, row.from_cache) for row in short] == [("bf16", False), ("bf16", True)]
    assert (more.precision, len(timed)) == ("bf16", 1)
    (choice,) = registry.rows(BasePrecision)
    assert (choice.machine, choice.width, choice.bf16_seconds) == (render_jobs.machine, SIDE, 1.25)
    (first,), (second,) = pictures(registry, exact.key), pictures(registry, short[0].key)
    assert first.tobytes() != second.tobytes()
    assert ", Precision: bf16, " in second.info["parameters"]
    forget_choices(registry)


def generate(registry: Registry, work: RenderJobs, **values: Any) -> Render:
    key = ask(registry, **values)
    if registry.row(Render, key).state.is_final:  # answered from the cache
        return registry.row(Render, key)
    render, claim = claimed(registry, key)
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        work.run(render, lease, threading.Event())
    return registry.row(Render, render.key)


def forget_choices(registry: Registry) -> None:
    with registry.database.write() as session:
        session.connection().execute(sa.delete(BasePrecision))


def test_a_picture_says_which_layer_of_the_text_it_was_drawn_from(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    registry = trained.registry
    usual, earlier = (
        registry.until_final(Render, ask(registry, clip_skip=skip)) for skip in (1, 2)
    )
    (first,), (second,) = pictures(registry, usual.key), pictures(registry, earlier.key)
    assert first.tobytes() != second.tobytes()
    assert ", Clip skip: 2, " in second.info["parameters"]
    assert "Clip skip" not in first.info["parameters"]


def test_an_equal_request_is_answered_from_what_was_drawn(
    trained: TrainedRegistry, render_jobs: RenderJobs
) -> None:
    registry = trained.registry
    values = {"prompt": "a house", "seed": 1}
    # two wait for the worker, which draws one of them; the third is asked for afterwards
    keys = [ask(registry, **values), ask(registry, **values), ask(registry, prompt="a house")]
    with registry.working(SharedWork(render_jobs)):
        first, again, other = (registry.until_final(Render, key) for key in keys)
    late = registry.row(Render, ask(registry, **values))
    assert [row.from_cache for row in (first, again, other, late)] == [False, True, False, True]
    assert late.status == "succeeded"
    hashes = [
        [image.sha256 for image in registry.rows(RenderImage, render_id=render.key)]
        for render in (first, again, late)
    ]
    assert hashes[0] == hashes[1] == hashes[2] != []


def test_a_picture_that_was_drawn_but_lost_is_drawn_again(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    registry = trained.registry
    first = registry.until_final(Render, ask(registry, prompt="a boat"))
    (image,) = registry.rows(RenderImage, render_id=first.key)
    registry.store.delete(image.sha256)
    again = registry.until_final(Render, ask(registry, prompt="a boat"))
    assert (again.status, again.from_cache) == ("succeeded", False)
    assert registry.store.exists(image.sha256)


def test_the_twin_without_adapters_is_drawn_by_the_base(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    registry = trained.registry
    key = ask(registry, prompt="a tree", adapters=[chalk(trained)], twin=True)
    render = registry.until_final(Render, key)
    twin = registry.until_final(Render, render.twin_id)
    plain = registry.until_final(Render, ask(registry, prompt="a tree"))
    assert (render.status, twin.status, plain.from_cache) == ("succeeded", "succeeded", True)
    (with_style,), (without,) = pictures(registry, key), pictures(registry, twin.key)
    assert with_style.tobytes() != without.tobytes()
    assert "<lora:" not in without.info["parameters"]


def test_a_weight_of_zero_gives_the_picture_of_the_base(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    registry = trained.registry
    plain = registry.until_final(Render, ask(registry, prompt="a fish"))
    silent = registry.until_final(
        Render, ask(registry, prompt="a fish", adapters=[chalk(trained, 0.0)])
    )
    drawn = [pictures(registry, render.key)[0].tobytes() for render in (plain, silent)]
    assert drawn[0] == drawn[1]


def test_an_adapter_that_does_not_fit_the_base_is_named_in_the_error(
    trained: TrainedRegistry, render_jobs: RenderJobs, tmp_path: Path
) -> None:
    registry = trained.registry
    path = tmp_path / "wide.safetensors"
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    module = LoraModule(Component.DENOISER, layer, torch.ones(2, 768), torch.ones(320, 2), 2.0)
    save_adapter(LoraAdapter((module,)), path)
    blob = registry.store.put_file(path)
    render, claim = claimed(registry, ask(registry, prompt="a bird", adapters=[chalk(trained)]))
    render.adapters = [render.adapters[0] | {"sha256": blob.sha256}]
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        render_jobs.run(render, lease, threading.Event())
    render = registry.row(Render, render.key)
    assert (render.status, render.error_code) == ("failed", "render")
    assert "cross-attention width 768" in render.error
    after, claim = claimed(registry, ask(registry, prompt="a bird"))
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        render_jobs.run(after, lease, threading.Event())
    assert registry.row(Render, after.key).status == "succeeded"


def test_damaged_weights_fail_the_render_with_their_name(
    trained: TrainedRegistry, render_jobs: RenderJobs, tmp_path: Path
) -> None:
    registry = trained.registry
    blob = registry.store.put_bytes(b"weights")
    registry.store.local_path(blob.sha256, tmp_path).write_bytes(b"#eights")
    with registry.database.write() as session:
        new = NewVersion("Faded", "sd1", blob.sha256, blob.size, 2, 2.0)
        version = publish(session, replace(new, base_model_id=registry.base_id))
    faded = WeightedAdapter(adapter_id=version.adapter_id)
    render, claim = claimed(registry, ask(registry, prompt="a bird", adapters=[faded]))
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        render_jobs.run(render, lease, threading.Event())
    render = registry.row(Render, render.key)
    assert (render.status, render.error_code) == ("failed", "blob_damaged")
    assert render.error.startswith("The file with the weights of version 1 of “Faded” is damaged. ")


def test_an_image_of_each_adapter_without_one_becomes_its_cover(
    trained: TrainedRegistry, render_jobs: RenderJobs
) -> None:
    registry = trained.registry
    source = registry.row(AdapterVersion, registry.row(Run, trained.run_id).adapter_version_id)
    file = {"sha256": source.sha256, "size_bytes": source.size_bytes, "rank": 2, "alpha": 2.0}
    with registry.database.write() as session:
        for other in ordered_covers.missing_covers(session).adapters:
            other.cover_sha256 = "5" * 64
        new = NewVersion("Bare", "sd1", **file, base_model_id=registry.base_id)
        bare = publish(session, new).adapter_id
        publish(session, NewVersion("Elsewhere", "sdxl", **file))
        shown = publish(session, replace(new, name="Shown", cover_sha256="5" * 64)).adapter_id
        count, left_out = ordered_covers.order_covers(session, registry.store)
        again, _ = ordered_covers.order_covers(session, registry.store)
    assert (count, again) == (1, 0)
    assert ["Elsewhere" in sentence for sentence in left_out] == [True]
    with registry.database.read() as session:
        assert ordered_covers.missing_covers(session).waiting == 1
    # a worker that ends while it draws: the next one goes on
    draft, claim = claimed(registry, next(iter(registry.rows(Render, status="queued"))).key)
    with registry.database.write() as session:
        jobs.give_back(session, Render, claim)
    with registry.working(SharedWork(render_jobs)):
        registry.until_final(Render, draft.key)
    (image,) = registry.rows(RenderImage, render_id=draft.key)
    assert registry.row(Adapter, bare).cover_sha256 == image.sha256
    assert registry.row(Adapter, shown).cover_sha256 == "5" * 64
    with registry.database.read() as session:
        assert draft.key not in {render.key for render in listing.recent_renders(session)}
        missing = ordered_covers.missing_covers(session)
    assert (missing.waiting, [adapter.name for adapter in missing.adapters]) == (0, ["Elsewhere"])


def test_a_damaged_image_is_generated_again(trained: TrainedRegistry, loop: JobLoop) -> None:
    registry = trained.registry
    first = registry.until_final(Render, ask(registry, prompt="a boat at sea"))
    (image,) = registry.rows(RenderImage, render_id=first.key)
    with registry.database.write() as session:
        findings.note(session, [image.sha256], FileProblem.DAMAGED)
    again = registry.until_final(Render, ask(registry, prompt="a boat at sea"))
    assert (again.status, again.from_cache) == ("succeeded", False)
    with registry.database.read() as session:
        assert findings.problems(session, [image.sha256]) == {}


def claimed(registry: Registry, key: int) -> tuple[Render, Claim]:
    with registry.database.write() as session:
        found = jobs.claim_next(session, Render, lease_seconds=60)
        assert found is not None
        assert found[0].key == key
    return found


def test_a_canceled_render_ends_at_its_next_step(
    trained: TrainedRegistry, render_jobs: RenderJobs
) -> None:
    registry = trained.registry
    render, claim = claimed(registry, ask(registry, prompt="a long one", steps=150))
    registry.cancel(Render, render.key)
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        render_jobs.run(render, lease, threading.Event())
    found = registry.row(Render, render.key)
    assert found.status == "canceled"
    assert found.progress < 150
    assert registry.rows(RenderImage, render_id=render.key) == []


def test_a_strip_has_an_image_for_each_weight_and_each_says_its_own(
    trained: TrainedRegistry, loop: JobLoop
) -> None:
    registry = trained.registry
    weights = [[0.5], [0.0], [1.0]]
    key = ask(registry, prompt="a strip", adapters=[chalk(trained, 0.5)], weights=weights)
    render = registry.until_final(Render, key)
    assert (render.status, render.error, render.progress) == ("succeeded", None, 9)
    strip = pictures(registry, key)
    prompts = [image.info["parameters"].split("\n")[0] for image in strip]
    tag = " <lora:chalk-board-v1:{}>"
    assert prompts == [f"a strip{tag.format(0.5)}", "a strip", f"a strip{tag.format(1)}"]
    used = [json.loads(image.info["brushwork"])["adapters"] for image in strip]
    assert [[one["weight"] for one in stack] for stack in used] == [[0.5], [], [1.0]]
    assert {row.seed for row in registry.rows(RenderImage, render_id=key)} == {7}
    for weight, image in zip((0.5, 0.0, 1.0), strip, strict=True):
        single = ask(registry, prompt="a strip", adapters=[chalk(trained, weight)])
        registry.until_final(Render, single)
        (alone,) = pictures(registry, single)
        assert max(high for _, high in ImageChops.difference(image, alone).getextrema()) <= 1


def test_a_strip_of_many_adapters_is_generated_in_parts(
    trained: TrainedRegistry, loop: JobLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_pipelines, "MAX_RENDER_ADAPTERS", 1)  # in use at once
    registry = trained.registry
    made = registry.row(Run, trained.run_id).adapter_version_id
    saved = next(
        row
        for row in registry.rows(AdapterVersion, version=2)
        if not registry.row(Adapter, row.adapter_id).is_listed  # the adapter of a checkpoint
    )
    step = WeightedAdapter(adapter_id=saved.adapter_id, version=saved.version, weight=1.0)
    weights = [[0.5, None], [None, 1.0], [1.0, None]]
    key = ask(registry, prompt="steps", adapters=[chalk(trained), step], weights=weights)
    render = registry.until_final(Render, key)
    assert (render.status, render.error, render.progress) == ("succeeded", None, 9)
    used = [json.loads(image.info["brushwork"])["adapters"] for image in pictures(registry, key)]
    assert [[one["version_id"] for one in stack] for stack in used] == [[made], [saved.key], [made]]


def test_a_preview_is_shown_while_an_image_is_generated_and_never_kept(
    trained: TrainedRegistry, render_jobs: RenderJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = trained.registry
    monkeypatch.setattr(previews, "PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr(previews, "MAX_SHARE", float("inf"))
    monkeypatch.setattr("worker.runtime.render_jobs.REPORT_SECONDS", 0.0)
    shown: list[bytes | None] = []
    write_step = results.write_step

    def watch(session: Session, claim: Claim, done: int, *, preview: bytes | None) -> bool:
        goes_on = write_step(session, claim, done, preview=preview)
        shown.append(session.exec(select(Render.preview).where(Render.id == claim.job_id)).one())
        return goes_on

    monkeypatch.setattr(results, "write_step", watch)
    render, claim = claimed(registry, ask(registry, prompt="a watched one", steps=4))
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        render_jobs.run(render, lease, threading.Event())
    found = registry.row(Render, render.key)
    assert (found.status, found.preview) == ("succeeded", None)
    assert shown[0] is None  # nothing is known before the first step
    images = [Image.open(io.BytesIO(one)) for one in shown[1:] if one is not None]
    assert len(images) == 3
    assert {(image.format, image.size) for image in images} == {("WEBP", (SIDE, SIDE))}


def test_previews_take_a_small_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previews, "MAX_SHARE", 1e-6)  # the next one is due in hours
    made: list[float] = []

    def slow(_: Any) -> Image.Image:
        time.sleep(0.01)
        made.append(time.monotonic())
        return Image.new("RGB", (512, 256))

    maker = previews.Previews(slow)
    maker._due = 0.0
    for _ in range(100):
        maker.note(0, torch.zeros(1, 4, 8, 8))
        maker.note(1, torch.zeros(1, 4, 8, 8))  # the second image has none
    assert len(made) == 1
    newest = maker.take()
    assert newest is not None
    assert Image.open(io.BytesIO(newest)).size == (previews.MAX_SIDE, previews.MAX_SIDE // 2)
    assert maker.take() is None


def test_a_worker_that_ends_gives_its_render_back(
    trained: TrainedRegistry, render_jobs: RenderJobs
) -> None:
    registry = trained.registry
    render, claim = claimed(registry, ask(registry, prompt="another long one", steps=150))
    stopping = threading.Event()
    stopping.set()
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        render_jobs.run(render, lease, stopping)
    found = registry.row(Render, render.key)
    assert (found.status, found.attempt) == ("queued", 0)
    registry.cancel(Render, render.key)


def test_a_worker_that_lost_its_render_writes_nothing(
    trained: TrainedRegistry, render_jobs: RenderJobs
) -> None:
    registry = trained.registry
    render, claim = claimed(registry, ask(registry, prompt="taken over"))
    with registry.database.write() as session:
        taken = session.get_one(Render, render.key)
        taken.owner_token = "somebody else"
        session.add(taken)
    with (
        Lease(registry.database, Render, claim, seconds=60) as lease,
        pytest.raises(jobs.LostLease),
    ):
        render_jobs.run(render, lease, threading.Event())
    assert registry.row(Render, render.key).status == "running"
    assert registry.rows(RenderImage, render_id=render.key) == []
    with registry.database.write() as session:
        jobs.finish(session, Render, Claim(render.key, "somebody else"), jobs.JobStatus.FAILED)


def test_a_base_that_is_gone_fails_the_render_with_a_sentence(registry: Registry) -> None:
    with registry.database.write() as session:
        session.add(
            BaseModel(
                slug="gone",
                name="Gone",
                source=str(registry.settings.data_dir / "gone"),
                status=ModelStatus.READY,
                family="sd1",
                resolution=64,
            )
        )
    key = ask(registry)
    (gone,) = registry.rows(BaseModel, slug="gone")
    with registry.database.write() as session:
        render = session.get_one(Render, key)
        render.base_model_id = gone.key
        session.add(render)
    render, claim = claimed(registry, key)
    work = RenderJobs(registry.settings, registry.database, registry.store)
    with Lease(registry.database, Render, claim, seconds=60) as lease:
        work.run(render, lease, threading.Event())
    found = registry.row(Render, key)
    assert (found.status, found.error_code) == ("failed", "invalid_input")
    assert "are missing from" in found.error


def test_an_image_that_waits_comes_before_the_warm_up(trained: TrainedRegistry) -> None:
    registry = trained.registry
    key = ask(registry, prompt="a first image")
    work = RenderJobs(registry.settings, registry.database, registry.store)
    work.prepare()
    assert work._warm is not None
    assert [held.is_tuned for held in work._warm._pipelines.values()] == [False]
    with registry.working(SharedWork(work)):
        assert registry.until_final(Render, key).status == "succeeded"
    assert [held.is_tuned for held in work._warm._pipelines.values()] == [True]
    work.close()


def test_the_base_that_was_used_last_is_loaded_at_the_start(
    trained: TrainedRegistry, tmp_path: Path
) -> None:
    registry = trained.registry
    folder = save_two_blocks(tmp_path / "other")
    info = inspect_base(folder)
    facts = {"family": info.family, "parameters": info.parameters, "fingerprint": info.fingerprint}
    other = BaseModel(slug="other", name="Other", source=f"{folder}", **facts)
    key = ask(registry, prompt="an image of another base")
    registry.cancel(Render, key)
    with registry.database.write() as session:
        other.status = ModelStatus.READY
        session.add(other)
        session.flush()
        session.get_one(Render, key).base_model_id = other_id = other.key
    work = RenderJobs(registry.settings, registry.database, registry.store)
    work.prepare()
    assert work._warm is not None
    assert [held[0] for held in work._warm._pipelines] == [registry.base_id, other_id]
    shutil.rmtree(folder)
    after = RenderJobs(registry.settings, registry.database, registry.store)
    after.prepare()  # a base that is gone is no reason to fail
    assert after._warm is not None
    assert [held[0] for held in after._warm._pipelines] == [registry.base_id]
    work.close()
    after.close()
    with registry.database.write() as session:
        session.get_one(BaseModel, other_id).status = ModelStatus.REMOVED
