"""Adapters go to the Hub and come from it through the io worker; a stand-in is the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import SecretStr

from app.registry import hub_transfers as on_hub
from app.registry.adapters.versions.create_version import NewFile, NewVersion, add_file, publish
from app.registry.db import utcnow
from app.registry.hub_transfers import HubImport, PublishOptions
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.tables.jobs import IoJob
from tests.fake_hub import READ, WRITE, Hub, open_hub
from tests.worker.runtime.job_loops import Registry, open_registry, picture, wait_for
from tests.worker.runtime.trainer_server import TrainerServer
from worker.core import starter
from worker.core.families.family import Component
from worker.core.lora_files import canonical
from worker.core.lora_files.base_layers import adaptable_shapes
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.reading import read_adapter
from worker.core.words import LORA_FORMATS, WeightDtype
from worker.runtime import export_jobs
from worker.runtime.hub_jobs import _license_of_card
from worker.runtime.io_jobs import IoJobs

pytestmark = pytest.mark.usefixtures("forked_hub")
QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
ExportReport = list[tuple[NewFile, bytes]]


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login and no cache of this machine reaches the Hub process."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as in every worker


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub where a token may write."""
    with open_hub() as opened:
        opened.tokens |= {"good": WRITE, "reader": READ}
        yield opened


@pytest.fixture
def outward(registry: Registry, hub: Hub) -> Iterator[Registry]:
    """A registry with a token for the Hub, and a loop of io jobs at work on it."""
    token = SecretStr("good")
    settings = registry.settings.model_copy(update={"hub_endpoint": hub.url, "hub_token": token})
    changed = replace(registry, settings=settings)
    with changed.working(IoJobs(settings, registry.database, registry.store)):
        yield changed


def weights(seed: int = 0) -> LoraAdapter:
    out, width = adaptable_shapes(starter.PATH)[QUERY]
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(4, width, generator=random)
    up = torch.randn(out, 4, generator=random)
    path = QUERY.removeprefix("unet.")
    return LoraAdapter((LoraModule(Component.DENOISER, path, down, up, 2.0),))


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, trainers: TrainerServer
) -> ExportReport:
    """The downloads of the adapter, written and proved once."""
    folder = tmp_path_factory.mktemp("exported")
    registry = open_registry(folder, sqlite_template, trainers)
    add_adapter(registry, folder)
    (version,) = registry.rows(AdapterVersion)
    files, work = [], registry.io_work(folder)
    for form in LORA_FORMATS:
        file = export_jobs.download(
            work, version.key, ExportAdapterArgs(format=form, dtype=WeightDtype.FP16)
        )
        files.append((file, registry.store.local_path(file.sha256, folder).read_bytes()))
    registry.database.dispose()
    return files


def add_exported(registry: Registry, folder: Path, exported: ExportReport) -> int:
    """The adapter with its downloads, so that its publication writes none."""
    adapter_id = add_adapter(registry, folder)
    (version,) = registry.rows(AdapterVersion)
    with registry.database.write() as session:
        for file, content in exported:
            registry.store.put_bytes(content)
            add_file(session, version.key, file)
    return adapter_id


def add_adapter(registry: Registry, folder: Path) -> int:
    canonical.save_adapter(weights(), folder / "canonical.safetensors")
    blob = registry.store.put_file(folder / "canonical.safetensors")
    new = NewVersion(
        name="Chalk board",
        base_family="sd1",
        sha256=blob.sha256,
        size_bytes=blob.size,
        rank=4,
        alpha=2.0,
        trigger_words=["chalk"],
        license="cc-by-4.0",
        base_model_id=registry.base_id,
        steps=600,
        config={"resolution": 64},
        details={"images": 24},
    )
    with registry.database.write() as session:
        return publish(session, new).adapter_id


def order(registry: Registry, adapter_id: int, repo: str = "chalk", **wanted: str) -> int:
    with registry.database.write() as session:
        adapter = session.get_one(Adapter, adapter_id)
        publishing = PublishOptions(repo, **wanted)  # type: ignore[arg-type]
        return on_hub.order_publication(session, adapter, publishing, registry.settings).key


def cancel(registry: Registry, adapter_id: int, key: int) -> None:
    with registry.database.write() as session:
        adapter = session.get_one(Adapter, adapter_id)
        assert on_hub.cancel_publication(session, adapter, key).job.cancel_requested


def fetched(registry: Registry, source: str) -> HubImport:
    with registry.database.write() as session:
        key = on_hub.order_fetch(session, source, registry.settings).key

    def ended() -> HubImport | None:
        with registry.database.read() as session:
            found = on_hub.get_hub_import(session, key)
        return None if found.status.is_active else found

    found: HubImport = wait_for(ended)
    return found


def test_a_version_is_published_with_its_files_and_card(
    outward: Registry, hub: Hub, tmp_path: Path
) -> None:
    adapter_id = add_adapter(outward, tmp_path)
    done = outward.until_final(IoJob, order(outward, adapter_id, base_model="acme/tiny"))
    assert (done.status, done.error) == ("succeeded", None)
    repo = hub.repos["ada/chalk"]
    assert done.result == {
        "repo": "ada/chalk",
        "url": f"{hub.url}/ada/chalk",
        "commit": repo.commit,
        "private": True,
    }
    assert repo.private
    assert set(repo.files) == {
        "README.md",
        "chalk-board.safetensors",
        "pytorch_lora_weights.safetensors",
    }
    for name in ("chalk-board.safetensors", "pytorch_lora_weights.safetensors"):
        (tmp_path / name).write_bytes(repo.files[name])
        (module,) = read_adapter(tmp_path / name).modules
        assert (module.rank, module.alpha) == (4, 2.0)
    text = repo.files["README.md"].decode()
    matter = yaml.safe_load(text.split("---\n")[1])
    assert (matter["base_model"], matter["license"]) == ("acme/tiny", "cc-by-4.0")
    assert matter["instance_prompt"] == "chalk"
    assert "| Training images | 24 |" in text
    assert "| Training steps | 600 |" in text
    files = outward.rows(AdapterFile)
    assert {(file.format, file.dtype) for file in files} == {("kohya", "fp16"), ("peft", "fp16")}
    outward.until_final(IoJob, order(outward, adapter_id))  # again: into the same repository
    (_, second) = outward.rows(IoJob, kind="publish_adapter")
    assert (second.status, second.args["repo"], second.args["update"]) == (
        "succeeded",
        "ada/chalk",
        True,
    )


def test_what_was_published_comes_back_as_the_adapter_it_is(
    outward: Registry, hub: Hub, tmp_path: Path, exported: ExportReport
) -> None:
    adapter_id = add_exported(outward, tmp_path, exported)
    outward.until_final(IoJob, order(outward, adapter_id))
    for source in ("ada/chalk", f"{hub.url}/ada/chalk".replace(hub.url, "https://huggingface.co")):
        found = fetched(outward, source)
        assert (found.status, found.error) == ("succeeded", None)
        assert found.adapter_id == adapter_id


def test_an_adapter_comes_with_what_its_card_says(
    outward: Registry, hub: Hub, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    (module,) = weights(seed=1).modules
    stem = "lora_unet_" + module.path.replace(".", "_")
    tensors = {
        f"{stem}.lora_down.weight": module.down,
        f"{stem}.lora_up.weight": module.up,
        f"{stem}.alpha": torch.tensor(2.0),
    }
    save_file(tensors, tmp_path / "lora")
    card = "---\nlicense: mit\ninstance_prompt: ink wash\n---\n# Ink\n"
    repo = hub.add(
        "acme/ink-wash",
        {
            "pytorch_lora_weights.safetensors": (tmp_path / "lora").read_bytes(),
            "README.md": card.encode(),
            "images/fox.png": picture(1),
        },
    )
    found = fetched(outward, "acme/ink-wash")
    assert (found.status, found.error) == ("succeeded", None)
    adapter = outward.row(Adapter, found.adapter_id or 0)
    assert (adapter.name, adapter.trigger_words) == ("ink-wash", ["ink wash"])
    assert adapter.notes == (
        f"From acme/ink-wash on the Hugging Face Hub, commit {repo.commit[:12]}. License: mit."
    )
    assert adapter.license == "mit"
    assert adapter.cover_sha256
    (version,) = outward.rows(AdapterVersion, adapter_id=adapter.key)
    assert version.rank == 4


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ({"license": "cc-by-4.0", "license_name": "no"}, "cc-by-4.0"),
        ({"license": "other", "license_name": "My own"}, "My own"),
        ({"license": "other"}, "other"),
        ({}, ""),
    ],
)
def test_the_license_of_a_card_is_its_own_name(card: dict[str, str], license: str) -> None:
    assert _license_of_card(card) == license


def test_the_config_of_peft_comes_from_the_folder_of_the_weights(
    outward: Registry, hub: Hub, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    stem = f"base_model.model.{QUERY.removeprefix('unet.')}"
    (module,) = weights().modules
    tensors = {f"{stem}.lora_A.weight": module.down, f"{stem}.lora_B.weight": module.up}
    save_file(tensors, tmp_path / "lora")
    config = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}).encode()
    hub.add(
        "acme/chalk",
        {
            "unet/adapter_model.safetensors": (tmp_path / "lora").read_bytes(),
            "unet/adapter_config.json": config,
            "adapter_config.json": b"{}",
        },
    )
    found = fetched(outward, "acme/chalk/unet/adapter_model.safetensors")
    assert (found.status, found.error) == ("succeeded", None)
    (version,) = outward.rows(AdapterVersion, adapter_id=found.adapter_id or 0)
    assert (version.rank, version.alpha) == (4, 16.0)


def test_an_impossible_request_is_refused_with_the_reason(
    outward: Registry, hub: Hub, tmp_path: Path, exported: ExportReport
) -> None:
    hub.add("ada/taken", {"x.safetensors": b"x"})
    adapter_id = add_exported(outward, tmp_path, exported)
    done = outward.until_final(IoJob, order(outward, adapter_id, "taken"))
    assert (done.status, done.error_code) == ("failed", "hub_taken")
    assert "Choose another name" in done.error
    hub.tokens["good"] = READ
    done = outward.until_final(IoJob, order(outward, adapter_id, "ada/chalk"))
    assert (done.status, done.error_code) == ("failed", "hub_denied")
    assert "has no right to write" in done.error
    assert "“acme/nothing” was not found" in str(fetched(outward, "acme/nothing").error)
    hub.add("acme/text", {"lora.safetensors": json.dumps({"no": "lora"}).encode() * 9})
    assert "safetensors file" in str(fetched(outward, "acme/text").error)
    with outward.database.write() as session:
        adapter = session.get_one(Adapter, adapter_id)
        publishing = PublishOptions("ada/gone")
        key = on_hub.order_publication(session, adapter, publishing, outward.settings).key
        adapter.deleted_at = utcnow()
    assert "was deleted meanwhile" in outward.until_final(IoJob, key).error
    assert "ada/gone" not in hub.repos


@pytest.mark.parametrize("step", ["repos/create", "/lfs/"], ids=["being made", "uploading"])
def test_a_publication_that_is_canceled_leaves_nothing_on_the_hub(
    outward: Registry, hub: Hub, tmp_path: Path, exported: ExportReport, step: str
) -> None:
    adapter_id = add_exported(outward, tmp_path, exported)
    hub.holds |= {step, "/lfs/"}
    key = order(outward, adapter_id)
    wait_for(lambda: any(step in asked.path for asked in hub.asked))
    cancel(outward, adapter_id, key)
    hub.holds.discard("repos/create")  # the Hub makes it after all: only then can it be deleted
    done = outward.until_final(IoJob, key)
    assert (done.status, done.error) == ("canceled", None)
    assert hub.repos == {}
    hub.go.set()
    done = outward.until_final(IoJob, order(outward, adapter_id))
    assert (done.status, set(hub.repos)) == ("succeeded", {"ada/chalk"})


def test_a_cancel_that_comes_too_late_says_that_it_is_published(
    outward: Registry, hub: Hub, tmp_path: Path, exported: ExportReport
) -> None:
    adapter_id = add_exported(outward, tmp_path, exported)
    hub.holds.add("/commit/")
    key = order(outward, adapter_id)
    wait_for(lambda: any("/commit/" in asked.path for asked in hub.asked))
    cancel(outward, adapter_id, key)
    hub.go.set()
    done = outward.until_final(IoJob, key)
    assert (done.status, done.result["repo"]) == ("succeeded", "ada/chalk")
    assert "README.md" in hub.repos["ada/chalk"].files


def test_a_canceled_next_version_leaves_the_repository_as_it_was(
    outward: Registry, hub: Hub, tmp_path: Path, exported: ExportReport
) -> None:
    adapter_id = add_exported(outward, tmp_path, exported)
    outward.until_final(IoJob, order(outward, adapter_id))
    before = dict(hub.repos["ada/chalk"].files)
    with outward.database.write() as session:
        session.get_one(Adapter, adapter_id).license = "mit"
    hub.uploaded.clear()
    hub.asked.clear()
    hub.holds.add("/lfs/")
    key = order(outward, adapter_id)
    wait_for(lambda: any("/lfs/" in asked.path for asked in hub.asked))
    cancel(outward, adapter_id, key)
    assert outward.until_final(IoJob, key).status == "canceled"
    assert hub.repos["ada/chalk"].files == before


def test_files_that_could_not_be_deleted_are_reported(
    outward: Registry, hub: Hub, tmp_path: Path, exported: ExportReport
) -> None:
    adapter_id = add_exported(outward, tmp_path, exported)
    hub.keeps = True
    hub.holds.add("/lfs/")
    key = order(outward, adapter_id)
    wait_for(lambda: any("/lfs/" in asked.path for asked in hub.asked))
    cancel(outward, adapter_id, key)
    done = outward.until_final(IoJob, key)
    assert (done.status, done.error_code) == ("canceled", "hub_left")
    assert "the new, empty repository could not be deleted" in done.error
    assert hub.repos["ada/chalk"].files == {}


def test_an_import_that_is_canceled_leaves_no_adapter_and_no_file(
    outward: Registry, hub: Hub
) -> None:
    name = "pytorch_lora_weights.safetensors"
    hub.add("acme/ink", {name: b"x" * 16 * 2**20})
    hub.hold_after[name] = 2**20
    blobs = set(outward.settings.data_dir.glob("blobs/**/*"))
    with outward.database.write() as session:
        key = on_hub.order_fetch(session, "acme/ink", outward.settings).key
    wait_for(lambda: hub.gets(name))
    with outward.database.write() as session:
        assert on_hub.cancel_fetch(session, key).is_ending
    done = outward.until_final(IoJob, key)
    assert (done.status, done.error) == ("canceled", None)
    assert outward.rows(Adapter) == []
    assert outward.rows(IoJob, kind="import_adapter") == []
    assert set(outward.settings.data_dir.glob("blobs/**/*")) == blobs
