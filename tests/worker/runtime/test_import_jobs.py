"""Files from elsewhere become adapters, of any family and form, with what they say of them."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from app.cli.main import main
from app.registry.adapters import service as adapters
from app.registry.blobs import findings
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.jobs import IoJob
from tests.conftest import embedded_info
from tests.worker.runtime.job_loops import Registry
from worker.core import starter
from worker.core.lora_files.base_layers import adaptable_shapes, open_base_weights
from worker.core.lora_files.canonical import load_adapter
from worker.core.lora_files.compatible import explain_mismatch
from worker.runtime.io_jobs import IoJobs
from worker.runtime.job_progress import JobProgress

QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
STEM = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def at_work(registry: Registry) -> Iterator[Registry]:
    """A registry with the starter and a loop of io jobs at work on it."""
    with registry.working(work_of(registry)):
        yield registry


def work_of(registry: Registry) -> IoJobs:
    return IoJobs(registry.settings, registry.database, registry.store)


def lora(shape: tuple[int, ...], stem: str = STEM, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{stem}.lora_down.weight": torch.randn(4, shape[1], generator=generator),
        f"{stem}.lora_up.weight": torch.randn(shape[0], 4, generator=generator),
        f"{stem}.alpha": torch.tensor(2.0),
    }


def send(
    registry: Registry,
    tensors: Mapping[str, Tensor],
    folder: Path,
    metadata: dict[str, str] | None = None,
    *,
    name: str = "style.safetensors",
    beside: Mapping[str, bytes] | None = None,
    **order: Any,
) -> IoJob:
    """The ended import of a file with these tensors."""
    save_file(dict(tensors), folder / "sent", metadata)
    blob = registry.store.put_file(folder / "sent")
    sidecars = [
        {"name": n, "sha256": registry.store.put_bytes(content).sha256}
        for n, content in (beside or {}).items()
    ]
    with registry.database.write() as session:
        job = adapters.order_import(
            session, sha256=blob.sha256, filename=name, sidecars=sidecars, **order
        )
    done: IoJob = registry.until_final(IoJob, job.key)
    return done


def made(registry: Registry, done: IoJob) -> tuple[Adapter, AdapterVersion]:
    assert done.error is None
    adapter = registry.row(Adapter, done.result["adapter_id"])
    return adapter, registry.rows(AdapterVersion, adapter_id=adapter.key)[-1]


def shape_of(key: str = QUERY) -> tuple[int, ...]:
    return adaptable_shapes(starter.PATH)[key]


def picture(color: str = "red", size: int = 64) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (size, size), color).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("shape", "family"), [((1280, 768), "sd1"), ((1280, 1024), "sd2"), ((1280, 2048), "sdxl")]
)
def test_a_family_is_seen_from_shapes_where_no_base_of_it_is_here(
    shape: tuple[int, int], family: str, at_work: Registry, tmp_path: Path
) -> None:
    adapter, version = made(at_work, send(at_work, lora(shape), tmp_path))
    assert (adapter.base_family, version.base_model_id, version.rank) == (family, None, 4)
    assert any("No base model here belongs to this family" in n for n in notes_of(version))


def notes_of(version: AdapterVersion) -> list[str]:
    notes: list[str] = version.details["import_notes"]
    return notes


@pytest.mark.parametrize(("wish", "status"), [("stop", "queued"), ("cancel", "canceled")])
def test_an_import_ends_between_two_layers(
    wish: str, status: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    told = JobProgress.__call__

    def slowly(progress: JobProgress, at: int, total: int) -> None:
        begun.set()
        assert go_on.wait(60)
        told(progress, at, total)

    monkeypatch.setattr(JobProgress, "__call__", slowly)
    save_file(lora((1280, 768)), tmp_path / "sent")
    blob = registry.store.put_file(tmp_path / "sent")
    with registry.database.write() as session:
        job = adapters.order_import(session, sha256=blob.sha256, filename="ink.safetensors")
    with registry.working(work_of(registry)) as loop:
        assert begun.wait(60)
        if wish == "stop":
            loop.request_stop()
            go_on.set()
        else:
            registry.cancel(IoJob, job.key)
            go_on.set()
            registry.until_final(IoJob, job.key)
    row: IoJob = registry.row(IoJob, job.key)
    assert (row.status, row.attempt > 0) == (status, wish == "cancel")
    assert registry.rows(Adapter) == []
    if wish == "stop":
        monkeypatch.undo()
        with registry.working(work_of(registry)):
            made(registry, registry.until_final(IoJob, job.key))


def test_an_sdxl_file_for_another_base_says_so(at_work: Registry, tmp_path: Path) -> None:
    done = send(at_work, lora((1280, 2048)), tmp_path, base_model_id=at_work.base_id)
    assert (done.status, done.error_code) == ("failed", "adapter")
    assert "was made for an SDXL base" in done.error
    assert f"“starter” has {embedded_info().cross_attention_dim}" in done.error


def test_a_loha_for_the_starter_is_stored_as_a_lora_and_said_so(
    at_work: Registry, tmp_path: Path
) -> None:
    out, given = shape_of()
    factors = {
        "hada_w1_a": torch.randn(out, 2),
        "hada_w1_b": torch.randn(2, given),
        "hada_w2_a": torch.randn(out, 2),
        "hada_w2_b": torch.randn(2, given),
    }
    sent = {f"{STEM}.{name}": tensor for name, tensor in factors.items()}
    _, version = made(at_work, send(at_work, sent, tmp_path))
    assert version.details["kinds"] == {"LoHa": 1}
    assert "1 LoHa module was converted to LoRA (rank 4)" in notes_of(version)[0]
    assert version.details["converted"]
    source = at_work.store.local_path(version.details["source_sha256"], tmp_path)
    assert source.read_bytes() == (tmp_path / "sent").read_bytes()
    stored = load_adapter(at_work.store.local_path(version.sha256, tmp_path))
    assert explain_mismatch(stored, adaptable_shapes(starter.PATH)) is None
    first = factors["hada_w1_a"] @ factors["hada_w1_b"]
    expected = first * (factors["hada_w2_a"] @ factors["hada_w2_b"])
    assert torch.allclose(stored.modules[0].delta(), expected, rtol=1e-4, atol=1e-4)


def test_a_dora_for_a_base_that_is_here_becomes_the_lora_it_makes_there(
    at_work: Registry, tmp_path: Path
) -> None:
    sent = lora(shape_of())
    base = open_base_weights(starter.PATH)(QUERY)
    assert base is not None
    down, up = sent[f"{STEM}.lora_down.weight"], sent[f"{STEM}.lora_up.weight"]
    moved = base + up @ down / 2
    magnitude = moved.norm(dim=1, keepdim=True) * 1.1
    _, version = made(at_work, send(at_work, sent | {f"{STEM}.dora_scale": magnitude}, tmp_path))
    assert any("DoRA" in note for note in notes_of(version))
    stored = load_adapter(at_work.store.local_path(version.sha256, tmp_path))
    assert torch.allclose(stored.modules[0].delta(), moved * 1.1 - base, atol=1e-4)


def test_a_dora_whose_base_is_not_here_is_refused(at_work: Registry, tmp_path: Path) -> None:
    sent = lora((1280, 768)) | {f"{STEM}.dora_scale": torch.ones(1280, 1)}
    done = send(at_work, sent, tmp_path)
    assert done.status == "failed"
    assert "Add that base model" in done.error


def test_the_same_tensors_under_another_name_are_the_adapter_that_is_here(
    at_work: Registry, tmp_path: Path
) -> None:
    adapter, _ = made(at_work, send(at_work, lora((1280, 768)), tmp_path))
    done = send(at_work, lora((1280, 768)), tmp_path, {"modelspec.title": "Other"}, name="b")
    known = {"adapter_id": adapter.key, "version": 1, "duplicate": True}
    assert done.result == known
    renamed = {n.replace(STEM, QUERY): t for n, t in lora((1280, 768)).items()}
    renamed = {
        n.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): t for n, t in renamed.items()
    }
    again = send(at_work, renamed, tmp_path)  # other bytes, the same change
    assert again.result == known


def test_nearly_the_same_weights_are_named_with_the_adapter_that_has_them(
    at_work: Registry, tmp_path: Path
) -> None:
    tensors = lora(shape_of())
    made(at_work, send(at_work, tensors, tmp_path, name="ink.safetensors"))
    half = {name: tensor.half() for name, tensor in tensors.items()}
    _, version = made(at_work, send(at_work, half, tmp_path, name="ink-fp16.safetensors"))
    note = "Its weights are nearly the same as those of “ink” (cosine 1.00)."
    assert notes_of(version) == [note]
    other = send(at_work, lora(shape_of(), seed=1), tmp_path, name="chalk.safetensors")
    assert notes_of(made(at_work, other)[1]) == []


@pytest.mark.parametrize("is_first_bare", [True, False])
def test_equal_tensors_of_another_strength_are_another_adapter(
    is_first_bare: bool, at_work: Registry, tmp_path: Path
) -> None:
    tensors = {
        f"{QUERY}.lora_A.weight": lora((1280, 768))[f"{STEM}.lora_down.weight"],
        f"{QUERY}.lora_B.weight": lora((1280, 768))[f"{STEM}.lora_up.weight"],
    }
    told = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 8.0})}
    copies: list[dict[str, str] | None] = [None, told] if is_first_bare else [told, None]
    found = [made(at_work, send(at_work, tensors, tmp_path, copy)) for copy in copies]
    alphas = [version.alpha for _, version in found]
    assert alphas == ([4, 8] if is_first_bare else [8, 4])
    assert found[0][0].key != found[1][0].key
    for copy, (adapter, _) in zip(copies, found, strict=True):  # again, under another header
        done = send(at_work, tensors, tmp_path, (copy or {}) | {"modelspec.title": "Again"})
        assert (done.result["adapter_id"], done.result["duplicate"]) == (adapter.key, True)


def test_importing_a_file_again_mends_its_damaged_weights(
    at_work: Registry, tmp_path: Path
) -> None:
    _, version = made(at_work, send(at_work, lora(shape_of()), tmp_path))
    path = at_work.store.local_path(version.sha256, tmp_path)
    path.write_bytes(b"#" + path.read_bytes()[1:])
    again = send(at_work, lora(shape_of()), tmp_path)
    assert (again.error, again.result["duplicate"]) == (None, True)
    assert at_work.store.checked_stat(version.sha256).size == version.size_bytes
    with at_work.database.read() as session:
        assert findings.problems(session) == {}
    assert len(at_work.rows(Adapter)) == 1


def test_two_files_of_one_name_are_two_adapters(at_work: Registry, tmp_path: Path) -> None:
    one, _ = made(at_work, send(at_work, lora((1280, 768), seed=1), tmp_path))
    two, _ = made(at_work, send(at_work, lora((1280, 768), seed=2), tmp_path))
    assert (one.slug, two.slug) == ("style", "style-2")


def test_an_import_can_be_the_next_version(at_work: Registry, tmp_path: Path) -> None:
    one, _ = made(at_work, send(at_work, lora((1280, 768), seed=1), tmp_path))
    done = send(at_work, lora((1280, 768), seed=2), tmp_path, adapter_id=one.key)
    adapter, version = made(at_work, done)
    assert (adapter.key, version.version) == (one.key, 2)
    other = send(at_work, lora((1280, 2048), seed=3), tmp_path, adapter_id=one.key)
    assert other.status == "failed"
    assert "Import it as a new adapter." in str(other.error)


def test_a_known_file_has_to_fit_the_base_that_is_named_too(
    at_work: Registry, tmp_path: Path
) -> None:
    adapter, _ = made(at_work, send(at_work, lora((1280, 768)), tmp_path))
    assert adapter.base_family == "sd1"
    starter_id = at_work.rows(BaseModel)[0].key
    again = send(at_work, lora((1280, 768)), tmp_path, base_model_id=starter_id)
    assert again.status == "failed"
    assert "cross-attention width 768" in str(again.error)


def test_a_version_fits_what_the_adapter_is_for_not_only_its_family(
    at_work: Registry, tmp_path: Path
) -> None:
    starters, first = made(at_work, send(at_work, lora(shape_of(), seed=1), tmp_path))
    assert first.base_model_id is not None
    foreign = send(at_work, lora((1280, 768), seed=2), tmp_path, adapter_id=starters.key)
    assert foreign.status == "failed"
    assert "Import it as a new adapter." in str(foreign.error)
    fitting = send(at_work, lora(shape_of(), seed=3), tmp_path, adapter_id=starters.key)
    assert made(at_work, fitting)[1].base_model_id == first.base_model_id
    sd15, _ = made(at_work, send(at_work, lora((1280, 768), seed=4), tmp_path))
    other_way = send(at_work, lora(shape_of(), seed=5), tmp_path, adapter_id=sd15.key)
    assert other_way.status == "failed"


def test_the_header_tells_name_trigger_license_and_picture(
    at_work: Registry, tmp_path: Path
) -> None:
    thumbnail = "data:image/png;base64," + base64.b64encode(picture(size=600)).decode()
    metadata = {
        "modelspec.title": "Ink\nwash",
        "modelspec.trigger_phrase": "ink wash, sumi",
        "modelspec.license": "CC-BY-4.0",
        "modelspec.author": "Ann <b>Ink</b>",
        "modelspec.description": "<p>Soft &amp; wet</p>",
        "modelspec.tags": "Ink, painting",
        "modelspec.thumbnail": thumbnail,
    }
    adapter, version = made(at_work, send(at_work, lora((1280, 768)), tmp_path, metadata))
    assert (adapter.name, adapter.license) == ("Ink wash", "CC-BY-4.0")
    assert version.details["author"] == "Ann Ink"
    assert version.details["converted"] is False
    assert adapter.trigger_words == ["ink wash", "sumi"]
    assert adapter.notes == "Soft & wet"
    with at_work.database.read() as session:
        assert adapters.summary(session, adapter).tags == ["ink", "painting"]
    small = at_work.row(Thumbnail, adapter.cover_sha256).small_sha256
    for sha256, side in ((adapter.cover_sha256, 512), (small, 256)):
        with at_work.store.open(sha256) as cover:
            assert Image.open(cover).size == (side, side)
    with at_work.database.write() as session:
        job = adapters.order_file(session, version.key)
    done = at_work.until_final(IoJob, job.key)
    with safe_open(at_work.store.local_path(done.result["sha256"], tmp_path), "pt") as file:
        said = file.metadata()
    assert (said["modelspec.author"], said["modelspec.license"]) == ("Ann Ink", "CC-BY-4.0")


def test_files_beside_it_tell_more_than_the_header(at_work: Registry, tmp_path: Path) -> None:
    shop = {
        "modelId": 7,
        "model": {"name": "Chalk by Ann", "tags": ["style"]},
        "trainedWords": ["chalkboard, dusty"],
        "description": "<script>alert(1)</script>On a board",
    }
    beside = {
        "style.civitai.info": json.dumps(shop).encode(),
        "style.json": json.dumps({"activation text": "other", "sd version": "SD1"}).encode(),
        "style.preview.png": picture("blue", 32),
    }
    done = send(at_work, lora((1280, 768)), tmp_path, {"ss_output_name": "last"}, beside=beside)
    adapter, _ = made(at_work, done)
    assert adapter.name == "Chalk by Ann"
    assert adapter.trigger_words == ["chalkboard", "dusty"]
    assert adapter.notes == "alert(1) On a board"
    with at_work.store.open(adapter.cover_sha256) as cover:
        assert Image.open(cover).size == (32, 32)
    assert at_work.row(Thumbnail, adapter.cover_sha256).small_sha256 is None


@pytest.mark.parametrize("source", ["title", "output", "file", "sidecar"])
def test_a_long_name_is_shortened_and_a_note_has_it_in_full(
    source: str, at_work: Registry, tmp_path: Path
) -> None:
    name = "A style of soft chalk on slate " * 4 + "and rank 202"
    metadata = {"title": {"modelspec.title": name}, "output": {"ss_output_name": name}}.get(source)
    filename = f"{name}.safetensors" if source == "file" else "style.safetensors"
    beside = {"style.civitai.info": json.dumps({"modelId": 1, "model": {"name": name}}).encode()}
    done = send(
        at_work,
        lora((1280, 768)),
        tmp_path,
        metadata,
        name=filename,
        beside=beside if source == "sidecar" else None,
    )
    adapter, version = made(at_work, done)
    assert adapter.name == name[:119].rstrip() + "…"
    note = f"Its name was shortened to 120 characters. In full: “{name}”."
    assert note in notes_of(version)
    assert note in done.result["notes"]


def test_metadata_of_a_hostile_file_stays_text_and_short(at_work: Registry, tmp_path: Path) -> None:
    metadata = {
        "modelspec.title": "<img src=x onerror=alert(1)>" + "A" * 5_000_000,
        "modelspec.trigger_phrase": "\u202e" + "x" * 100_000 + "," * 1000,
        "modelspec.thumbnail": "data:image/png;base64," + "!" * 1000,
        "ss_datasets": "[" * 100_000,
        "ssmd_cover_images": json.dumps([base64.b64encode(b"GIF89a not a picture").decode()]),
    }
    beside = {"style.json": b"[" * 1_000_000, "style.png": b"\x89PNG\r\n\x1a\n" + bytes(64)}
    adapter, version = made(
        at_work, send(at_work, lora((1280, 768)), tmp_path, metadata, beside=beside)
    )
    assert adapter.name == "A" * 119 + "…"
    assert any("Its name was shortened to 120 characters" in note for note in notes_of(version))
    assert max(map(len, notes_of(version))) < 600
    assert adapter.trigger_words == ["x" * 60]
    assert adapter.cover_sha256 is None
    assert any("The preview image of the file was skipped." in n for n in notes_of(version))


def test_files_of_this_machine_are_imported_from_the_command_line(
    at_work: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    shape = adaptable_shapes(starter.PATH)[QUERY]
    save_file(lora(shape), folder / "wet-ink.safetensors")
    (folder / "wet-ink.json").write_text(json.dumps({"activation text": "wetink"}))
    save_file(lora(shape), folder / "wet-ink2.safetensors")
    (folder / "zz.safetensors").write_bytes(b"")
    data = ["--data-dir", str(at_work.settings.data_dir)]
    assert main(["import", str(folder), "/nowhere/a.safetensors", *data]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "wet-ink.safetensors: wet-ink",
        "wet-ink2.safetensors: wet-ink (already in the registry)",
    ]
    assert "/nowhere/a.safetensors does not exist." in shown.err
    assert "“zz.safetensors” is empty." in shown.err
    (adapter,) = at_work.rows(Adapter, slug="wet-ink")
    assert adapter.trigger_words == ["wetink"]


def test_an_import_that_would_lose_much_waits_for_consent(
    at_work: Registry, tmp_path: Path
) -> None:
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    width = {f"{stem.replace('attn1_to_q', 'attn2_to_k')}.diff": torch.zeros(640, 768)}
    refused = send(at_work, {f"{stem}.diff": torch.randn(640, 640)} | width, tmp_path)
    assert (refused.status, refused.error_code) == ("failed", "loss")
    assert 0.1 < refused.result["loss"] < 1
    assert f"{refused.result['loss']:.0%}".replace("%", " %") in (refused.error or "")
    assert at_work.rows(Adapter) == []
    with at_work.database.write() as session:
        again = adapters.allow_import_loss(session, refused.key)
    _, version = made(at_work, at_work.until_final(IoJob, again.key))
    assert version.details["loss"] == refused.result["loss"]
    assert any("truncated to LoRA" in note for note in notes_of(version))


def peft_folder(folder: Path, alpha: int | None = 16) -> Path:
    """A folder as peft's save_pretrained writes it, for a layer of SD 1.5."""
    folder.mkdir()
    stem = f"base_model.model.{QUERY.removeprefix('unet.')}"
    generator = torch.Generator().manual_seed(3)
    tensors = {
        f"{stem}.lora_A.weight": torch.randn(4, 768, generator=generator),
        f"{stem}.lora_B.weight": torch.randn(1280, 4, generator=generator),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    if alpha is not None:
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": alpha}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_of_peft_is_imported_with_its_alpha(
    at_work: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data-dir", str(at_work.settings.data_dir)]
    for name, alpha in (("soft", None), ("ink", 16), ("same", 16)):
        folder = peft_folder(tmp_path / name, alpha)
        assert main(["import", str(folder), *data]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "ink.safetensors: ink"
    assert told[2] == "same.safetensors: ink (already in the registry)"
    soft, ink = at_work.rows(AdapterVersion)
    assert (soft.alpha, ink.alpha) == (4.0, 16.0)  # equal files of another strength
    assert "adapter_config.json" in " ".join(notes_of(soft))
    assert not any("adapter_config.json" in note for note in notes_of(ink))
