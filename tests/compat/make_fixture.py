"""Write `data-57f004e.tar.xz`, the data of commit 57f004e that `test_old_data.py` reads.

This ran once, with the code of that commit; today's modules have other names:

    git worktree add --detach ../old 57f004e
    cd ../old
    PYTHONPATH=. python <here>/tests/compat/make_fixture.py <here>/tests/compat/data-57f004e.tar.xz

The archive holds `data`, a data folder with finished and queued jobs; `config.json`, a TrainConfig
in which no field but `kind` has its default; `export.safetensors`, a download with notes and tags;
and `expected.json`, what the old code answered about them.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from app.adapters import imports
from app.adapters.service import DownloadDtype, DownloadFormat, order_file
from app.config import Settings
from app.db import Database, make_engine, utcnow
from app.jobs.models import IoJob
from app.main import create_app
from app.playground.models import Render
from app.runs.models import Run
from app.storage import open_store
from app.sweeping import order_if_due, sweep
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sqlmodel import select
from starlette.datastructures import UploadFile
from worker.runtime.rendering import Rendering
from worker.runtime.room import Room
from worker.runtime.training import Training

from app import migrate
from worker import starter
from worker.runtime.io_jobs import IoWork

PLACE = "/srv/brushwork"  # stands in the archive for the folder that this ran in
API = "/api/v1"
WAITS_SECONDS = 180.0
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
NOTES = "Boats only.\nWeight 0.8 is enough."

# no field but `kind` has its default: LoRA+ needs the kind LoRA
CONFIG = {
    "steps": 40,
    "batch_size": 3,
    "gradient_accumulation": 2,
    "seed": 11,
    "kind": "lora",
    "rank": 4,
    "alpha": 2.5,
    "rank_stabilized": True,
    "targets": "linear",
    "blocks": "mid, up.0.1",
    "train_text_encoder": True,
    "text_encoder_rank": 2,
    "text_encoder_alpha": 1.5,
    "text_encoder_steps": 20,
    "clip_skip": 2,
    "optimizer": "adafactor",
    "learning_rate": 0.0003,
    "text_encoder_learning_rate": 5e-05,
    "lora_plus_ratio": 4.0,
    "weight_decay": 0.02,
    "lr_scheduler": "cosine_restarts",
    "lr_cycles": 2,
    "warmup_steps": 5,
    "max_grad_norm": 0.5,
    "ema_decay": 0.9,
    "prediction_type": "v_prediction",
    "loss": "huber",
    "huber_delta": 0.2,
    "loss_weighting": "debiased",
    "snr_gamma": 4.0,
    "noise_offset": 0.05,
    "multires_noise_discount": 0.3,
    "zero_terminal_snr": True,
    "caption_dropout": 0.1,
    "shuffle_tags": True,
    "keep_tags": 2,
    "resolution": 64,
    "aspect_buckets": False,
    "flip": True,
    "masked_loss": True,
    "unmasked_weight": 0.25,
    "regularisation_weight": 0.5,
    "validation_share": 0.25,
    "precision": "fp32",
    "gradient_checkpointing": True,
    "compile": True,
    "checkpoint_every": 10,
    "keep_checkpoints": 3,
    "sample_every": 20,
    "sample_prompts": ["a boat --d 3 --w 64 --h 64 --l 5 --s 4 --n people --a 0.7", "a gull"],
    "sample_negative_prompt": "photo",
    "sample_steps": 8,
    "sample_guidance": 3.0,
    "sample_seed": 5,
}
SMALL_RUN = {
    "steps": 4,
    "batch_size": 2,
    "rank": 2,
    "alpha": 2.0,
    "blocks": "mid",
    "learning_rate": 0.001,
    "regularisation_weight": 0.5,
    "validation_share": 0.25,
    "checkpoint_every": 2,
    "keep_checkpoints": 1,
    "sample_every": 2,
    "sample_prompts": ["hrbr, a boat"],
    "sample_steps": 2,
    "precision": "fp32",
}


class Registry:
    """A data folder with the old app on it; `api` answers with the JSON of a request."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.settings = Settings(
            _env_file=None, data_dir=folder, device="cpu", threads=1, allowed_hosts="testserver"
        )
        migrate.upgrade(make_engine(self.settings.sqlalchemy_url))
        self.database = Database(make_engine(self.settings.sqlalchemy_url))
        self.store = open_store(None, folder)
        self.client = TestClient(create_app(self.settings))
        self.client.__enter__()

    def api(self, method: str, path: str, **values: Any) -> Any:
        answer = self.client.request(method, API + path, **values)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else None

    def rows(self, table: type[Any], **values: Any) -> list[Any]:
        with self.database.read() as session:
            return list(session.exec(select(table).filter_by(**values).order_by(table.id)))

    @contextmanager
    def _job_loop(self, work: Any) -> Any:
        room = Room(self.database, work, lease_seconds=self.settings.lease_seconds)
        room.start()
        yield room
        room.request_stop()
        assert room.join(WAITS_SECONDS)

    def run_queued(self, kind: type[Any]) -> None:
        """Run every queued job of a table; all must succeed."""
        work = kind(self.settings, self.database, self.store)
        with self._job_loop(work) as room:
            deadline = time.monotonic() + WAITS_SECONDS
            while any(row.state.is_active for row in self.rows(work.table)):
                assert time.monotonic() < deadline
                room.wake()
                time.sleep(0.1)
        bad = [row for row in self.rows(work.table) if row.status != "succeeded"]
        assert not bad, [(row.error, row.error_trace) for row in bad]

    def order(self, version: int, form: str, dtype: str, *, with_tags: bool = False) -> None:
        with self.database.write() as session:
            order_file(
                session, version, DownloadFormat(form), DownloadDtype(dtype), with_tags=with_tags
            )

    def order_import(self, path: Path, *sidecars: tuple[str, bytes], **beside: int) -> None:
        """Order an import; the request of the API would wait for its end."""
        uploads = [upload(name, content) for name, content in sidecars]
        file = upload(path.name, path.read_bytes())
        imports.receive(self.client.app.state.brushwork, file, sidecars=uploads, **beside)

    def close(self) -> None:
        self.client.__exit__(None, None, None)
        self.database.dispose()


def upload(name: str, content: bytes) -> UploadFile:
    return UploadFile(io.BytesIO(content), filename=name, size=len(content))


def make_image(number: int, size: int = 64) -> bytes:
    image = Image.new("RGB", (size, size), (40 + 30 * number, 90, 130))
    ImageDraw.Draw(image).ellipse((8, 8, 24 + 8 * number, 40), fill=(230, 40 * number, 90))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def lora_file(path: Path, seed: int) -> Path:
    """A LoRA of one layer with kohya's names, as another program would write it."""
    up, down = starter_shape()
    random = torch.Generator().manual_seed(seed)
    stem = "lora_unet_" + LAYER.replace(".", "_")
    tensors = {
        f"{stem}.lora_down.weight": torch.randn(2, down, generator=random) * 0.05,
        f"{stem}.lora_up.weight": torch.randn(up, 2, generator=random) * 0.05,
        f"{stem}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, path, metadata={"ss_output_name": path.stem, "modelspec.author": "Ada"})
    return path


def starter_shape() -> tuple[int, int]:
    with safe_open(
        starter.PATH / "unet" / "diffusion_pytorch_model.safetensors", framework="pt"
    ) as file:
        up, down = file.get_slice(f"{LAYER}.weight").get_shape()
    return up, down


def tuned_base(folder: Path) -> Path:
    """The embedded base with one layer changed."""
    shutil.copytree(starter.PATH, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors[f"{LAYER}.weight"] = tensors[f"{LAYER}.weight"] + 0.01
    save_file(tensors, path)
    return folder


def add_datasets(registry: Registry) -> tuple[int, int]:
    harbor = registry.api("POST", "/datasets", json={"name": "Harbor", "trigger_word": "hrbr"})
    plain = registry.api("POST", "/datasets", json={"name": "Plain boats"})
    subjects = ("a red boat", "a café at the quay", "two gulls, morning", "a net")
    for dataset, first, captions in (
        (harbor, 0, [f"hrbr, {subject}" for subject in subjects]),
        (plain, 4, ["a boat", ""]),
    ):
        for number, caption in enumerate(captions, first):
            files = [("files", (f"picture {number}.png", make_image(number)))]
            added = registry.api("POST", f"/datasets/{dataset['id']}/images", files=files)
            key = added["accepted"][0]["id"]
            registry.api("PATCH", f"/images/{key}", json={"caption": caption})
    registry.api("PATCH", "/images/2", json={"repeats": 3, "never_flip": True})
    return harbor["id"], plain["id"]


def finish_work(registry: Registry, folder: Path) -> None:
    """A run, its adapter, an imported adapter, their downloads and a render with its twin."""
    registry.api("POST", "/base-models", json={"source": str(tuned_base(folder / "tuned"))})
    harbor, plain = add_datasets(registry)
    order = {
        "dataset_id": harbor,
        "name": "Harbor light",
        "config": SMALL_RUN,
        "regularisation_dataset_id": plain,
    }
    registry.api("POST", "/runs", json=order)
    registry.run_queued(Training)
    change = {
        "name": "Harbor light",
        "notes": NOTES,
        "licence": "CC-BY-4.0",
        "starred": True,
        "trigger_words": ["hrbr", "harbour light"],
        "tags": ["boats", "sea"],
    }
    registry.api("PATCH", "/adapters/1", json=change)
    registry.api("PUT", "/adapters/1/aliases/best", json={"version": 1})
    notes = {
        "activation text": "inkwsh, ink",
        "license": "MIT",
        "description": "Wet ink on paper.",
        "sd version": "SD1",
    }
    registry.order_import(
        lora_file(folder / "ink wash.safetensors", 1),
        ("ink wash.json", json.dumps(notes).encode()),
        ("ink wash.png", make_image(7)),
    )
    registry.run_queued(IoWork)
    registry.api("PATCH", "/adapters/2", json={"tags": ["ink"]})
    for version in (1, 2):
        registry.order(version, "kohya", "fp16")
        registry.order(version, "peft", "fp16")
    registry.order(1, "kohya", "fp16", with_tags=True)
    registry.run_queued(IoWork)
    registry.api("POST", "/renders", json=render("hrbr, a boat at night", 7))
    registry.run_queued(Rendering)


def render(prompt: str, seed: int) -> dict[str, Any]:
    stack = [{"id": 1, "weight": 0.8, "version": "best"}, {"id": 2, "text_encoder_weight": 0.5}]
    return {
        "prompt": prompt,
        "negative_prompt": "fog",
        "seed": seed,
        "steps": 2,
        "guidance": 2.5,
        "adapters": stack,
        "twin": True,
    }


def queue_work(registry: Registry, folder: Path) -> None:
    """Queue a job of every kind, with the arguments the old code writes."""
    again = {"dataset_id": 1, "name": "Harbor again", "adapter_id": 1, "preset": "quick"}
    registry.api("POST", "/runs", json=again | {"config": {"regularisation_weight": 0.25}})
    resumed = {"dataset_id": 1, "continues": {"run_id": 1}, "regularisation_dataset_id": 2}
    registry.api("POST", "/runs", json=resumed | {"config": {"steps": 6}})
    registry.api("POST", "/renders", json=render("hrbr, a lighthouse", 8))

    registry.order(1, "bundle", "bf16", with_tags=True)
    registry.order(2, "kohya", "fp32")
    registry.order_import(
        lora_file(folder / "chalk.safetensors", 2),
        ("chalk.json", json.dumps({"activation text": "chlk", "license": "MIT"}).encode()),
        ("chalk.png", make_image(6)),
        base_model_id=1,
    )
    registry.order_import(lora_file(folder / "ink two.safetensors", 3), adapter_id=2)
    parts = [{"id": 1, "weight": 0.5}, {"id": 2, "weight": 1.5, "text_encoder_weight": 0.0}]
    merge = {"name": "Harbor ink", "adapters": parts}
    registry.api("POST", "/adapters/merge", json=merge)
    ties = {"name": "Harbor ties", "method": "ties", "rank": 1, "density": 0.4, "seed": 9}
    registry.api("POST", "/adapters/merge", json=merge | ties)
    registry.api("POST", "/adapters/1/resize", json={"rank": 1})
    fuse = {"name": "Harbor base", "weight": 0.7, "others": parts[1:]}
    registry.api("POST", "/adapters/1/fuse", json=fuse)
    single = {"name": "Harbor file", "layout": "single", "keep": "download", "dtype": "bf16"}
    registry.api("POST", "/adapters/1/fuse", json=single)
    extract = {"name": "Tuned apart", "base": "starter", "tuned": "tuned", "rank": 1}
    registry.api("POST", "/base-models/extract", json=extract)
    registry.api("POST", "/hub-imports", json={"source": "acme/ink@main/ink.safetensors"})
    publication = {"repo": "ada/harbor", "private": True, "base_model": "acme/tiny"}
    registry.api("POST", "/adapters/1/publications", json=publication)
    tiny = {"source": "acme/tiny@main", "precision": "fp32"}
    registry.api("POST", "/base-models", json=tiny)
    shutil.copytree(folder / "tuned", folder / "second")
    registry.api("POST", "/base-models", json={"source": str(folder / "second")})
    assert order_if_due(registry.database) is not None


def describe(registry: Registry) -> dict[str, Any]:
    """What the old code answers about its own data folder."""
    api = registry.api
    run = api("GET", "/runs/1")
    answers: dict[str, Any] = {
        "datasets": api("GET", "/datasets"),
        "images": {key: api("GET", f"/datasets/{key}/images") for key in (1, 2)},
        "run": {key: run[key] for key in ("name", "status", "step", "total_steps", "config")},
        "metrics": api("GET", "/runs/1/metrics"),
        "samples": api("GET", "/runs/1/samples"),
        "checkpoints": api("GET", "/runs/1/checkpoints"),
        "adapters": [api("GET", f"/adapters/{key}") for key in (1, 2)],
        "aliases": api("GET", "/adapters/1/aliases"),
        "render": api("GET", "/renders/2"),
        "base_models": api("GET", "/base-models"),
        "queued": {},
    }
    for table in (Run, Render, IoJob):
        rows = [row for row in registry.rows(table) if row.status == "queued"]
        fields = {"id", "kind", "subject_id", "args", "name", "prompt", "config", "adapters"}
        answers["queued"][table.__tablename__] = [row.model_dump(include=fields) for row in rows]
    return answers


def download(registry: Registry, path: Path) -> dict[str, str]:
    """Save the download with tags; returns its metadata."""
    answer = registry.client.get(f"{API}/adapters/1/download", params={"with_tags": True})
    assert answer.status_code == 200
    path.write_bytes(answer.content)
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def import_again(folder: Path, path: Path) -> Any:
    """The adapter that the old code makes of the download in an empty registry."""
    registry = Registry(folder)
    registry.order_import(path)
    registry.run_queued(IoWork)
    adapter = registry.api("GET", "/adapters/1")
    registry.close()
    return {key: value for key, value in adapter.items() if key != "created_at"}


def pack(folder: Path, out: Path) -> None:
    """Write the archive, without caches and logs and without the name of this folder."""
    for name in ("logs", "scratch", "cache", "broker", "attempts"):
        shutil.rmtree(folder / "data" / name, ignore_errors=True)
    with sqlite3.connect(folder / "data" / "brushwork.db") as connection:
        for column in ("source", "local_path"):
            connection.execute(
                f"UPDATE base_model SET {column} = replace({column}, ?, ?)", (str(folder), PLACE)
            )
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("VACUUM")
    connection.close()

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(out, "w:xz", preset=9) as archive:
        for name in ("config.json", "data", "expected.json", "export.safetensors"):
            archive.add(folder / name, name, filter=plain)


def main(out: Path) -> None:
    from worker.training.config import TrainConfig

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        registry = Registry(folder / "data")
        finish_work(registry, folder)
        metadata = download(registry, folder / "export.safetensors")
        sweep(registry.database, registry.store, now=utcnow() + timedelta(days=2))
        orphan = registry.store.put_bytes(b"nobody refers to this").sha256
        queue_work(registry, folder)
        answers = describe(registry) | {"metadata": metadata, "orphan": orphan}
        registry.close()
        answers["imported"] = import_again(folder / "again", folder / "export.safetensors")
        config = TrainConfig.model_validate(CONFIG).model_dump(mode="json")
        usual = TrainConfig().model_dump(mode="json")
        print("as usual:", sorted(name for name in config if config[name] == usual[name]))
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        text = json.dumps(answers, indent=1, ensure_ascii=False, default=str)
        (folder / "expected.json").write_text(text.replace(str(folder), PLACE))
        pack(folder, out)
    print(f"{out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
