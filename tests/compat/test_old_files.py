"""Files of commit 57f004e are still read: a config, an adapter with its metadata, a checkpoint.

The archive has what that commit wrote: `config.json`, a TrainConfig in which no field but `kind`
has its default; `export.safetensors`, a download with notes and tags; `step-000004`, the checkpoint
of the training that made it; and `expected.json`, the `config` of that training, the `metadata` of
the download, and the adapter as which the old code `imported` it.
"""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from sqlmodel import select

from app.registry import migrate
from app.registry.adapters import service as adapters
from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.jobs.service import claim_next
from app.registry.state import AppState
from app.registry.tables.adapters import AdapterFile
from app.registry.tables.jobs import IoJob
from tests.compat.old_starter import FINGERPRINT, save_old_starter
from tests.conftest import AppMaker
from tests.worker.training.conftest import Recorder
from worker.core import starter
from worker.core.bases.load import load_base
from worker.core.training.checkpoints import copy_start_checkpoint
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.events import StepDone
from worker.core.training.train import train
from worker.core.words import FileFormat, WeightDtype
from worker.runtime.io_jobs import IoJobs
from worker.runtime.lease import Lease

ARCHIVE = Path(__file__).parent / "files-57f004e.tar.xz"
CONFIG_KEY = "brushwork.train_config"
# names in configs and answers that have changed since, old: new
RENAMED = {
    "licence": "license",
    "regularisation_weight": "regularization_weight",
    "base_model_id": "base_model",
}
# what an export says of the training and of the import; the preview is encoded once more
NOT_IMPORTED = {
    CONFIG_KEY,
    "modelspec.date",
    "modelspec.thumbnail",
    "ss_num_train_images",
    "ss_tag_frequency",
    "ss_training_finished_at",
    "ss_training_started_at",
}
LEASE_SECONDS = 60.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked."""
    folder = tmp_path_factory.mktemp("57f004e")
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def expected(archive: Path) -> dict[str, Any]:
    """The old code's output and answers for these files."""
    return read_json(archive / "expected.json")


@pytest.fixture(scope="module")
def old_starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the base model that was embedded then."""
    return save_old_starter(tmp_path_factory.mktemp("starter-57f004e"))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def renamed(old: dict[str, Any]) -> dict[str, Any]:
    """The old code's output, under the names of today."""
    return {RENAMED.get(name, name): value for name, value in old.items()}


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    with safe_open(path, framework="np") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


# the config


def test_a_config_is_read_and_dumps_the_same(archive: Path) -> None:
    old = renamed(read_json(archive / "config.json"))
    now = TrainConfig.model_validate(read_json(archive / "config.json")).model_dump(mode="json")
    assert now == TrainConfig().model_dump(mode="json") | old  # newer fields have their defaults


def test_a_config_with_an_unknown_field_is_refused(archive: Path) -> None:
    with pytest.raises(ValueError, match="regularisation_weigth"):
        TrainConfig.model_validate(
            read_json(archive / "config.json") | {"regularisation_weigth": 1}
        )


def test_the_config_in_the_metadata_of_a_file_is_read(
    archive: Path, expected: dict[str, Any]
) -> None:
    old = json.loads(metadata_of(archive / "export.safetensors")[CONFIG_KEY])
    private = {"sample_prompts", "sample_negative_prompt"}
    assert old == {k: v for k, v in expected["config"].items() if k not in private}
    now = TrainConfig.model_validate(old).model_dump(mode="json")
    assert now == TrainConfig().model_dump(mode="json") | renamed(old)


# the checkpoint


def test_a_training_continues_from_a_checkpoint(
    archive: Path, expected: dict[str, Any], old_starter: Path, tmp_path: Path
) -> None:
    config = TrainConfig.model_validate(expected["config"] | {"steps": 6, "sample_prompts": []})
    images = [
        TrainingImage(add_image(tmp_path, number), f"{number}", "hrbr, a boat", **beside)
        for number, beside in enumerate(({}, {}, {"is_regularization": True}))
    ]
    out = tmp_path / "out"
    copy_start_checkpoint(archive / "step-000004", out, steps=6, base=FINGERPRINT)
    recorder = Recorder()
    base = load_base(old_starter)
    done = train(config, images, recorder, base=base, out=out, cache=None, continues=True)
    assert [event.step for event in recorder.of(StepDone)] == [5, 6]
    assert done.path is not None
    now, old = load_file(done.path), load_file(archive / "step-000004" / "adapter.safetensors")
    assert {name: tensor.shape for name, tensor in now.items()} == {
        name: tensor.shape for name, tensor in old.items()
    }


def add_image(folder: Path, number: int) -> Path:
    """An image of one color."""
    path = folder / f"{number}.png"
    Image.new("RGB", (64, 64), (40 + 30 * number, 90, 130)).save(path)
    return path


# the adapter


@dataclass(frozen=True)
class Imported:
    """A new registry that imported the old download."""

    state: AppState
    client: TestClient

    def run_queued(self) -> None:
        """Run every queued io job in this thread; all succeed."""
        state = self.state
        work = IoJobs(state.settings, state.database, state.store)
        while True:
            with state.database.write() as session:
                claimed = claim_next(session, IoJob, lease_seconds=LEASE_SECONDS)
            if claimed is None:
                break
            job, claim = claimed
            with Lease(state.database, IoJob, claim, seconds=LEASE_SECONDS) as lease:
                work.run(job, lease, threading.Event())
        work.close()
        with state.database.read() as session:
            jobs = session.exec(select(IoJob)).all()
        assert {(job.status, job.error) for job in jobs} == {("succeeded", None)}


@pytest.fixture(scope="module")
def imported(
    archive: Path,
    old_starter: Path,
    make_app: AppMaker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Imported]:
    folder = tmp_path_factory.mktemp("imported")
    settings = Settings(
        _env_file=None,
        data_dir=folder / "data",
        broker_url=f"filesystem://{folder}/broker",
        allowed_hosts="localhost",
        device="cpu",
        threads=1,
    )
    migrate.upgrade(make_engine(settings.sqlalchemy_url))
    app = make_app(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starter, "PATH", old_starter)  # the base model that the file was made for
        with TestClient(app, base_url="http://localhost") as client:
            registry = Imported(app.state.brushwork, client)
            with registry.state.database.write() as session:
                blob = registry.state.store.put_file(archive / "export.safetensors")
                adapters.order_import(session, sha256=blob.sha256, filename="export.safetensors")
            registry.run_queued()
            yield registry


def test_an_imported_file_keeps_what_the_old_code_read(
    imported: Imported, expected: dict[str, Any]
) -> None:
    old = renamed(expected["imported"])
    now = imported.client.get("/api/v1/adapters/1").json()
    assert imported.client.get(now["cover_url"]).status_code == 200
    old |= {"cover_url": now["cover_url"]}  # of an image that is encoded here
    assert now | old == now


def test_an_export_of_today_equals_the_old_one(
    imported: Imported, archive: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    with imported.state.database.write() as session:
        usual = ExportAdapterArgs(format=FileFormat.KOHYA, dtype=WeightDtype.FP16, with_tags=True)
        adapters.order_file(session, 1, usual)
    imported.run_queued()
    with imported.state.database.read() as session:
        (file,) = session.exec(select(AdapterFile).where(AdapterFile.with_tags)).all()
    path = imported.state.store.local_path(file.sha256, tmp_path)
    now, old = metadata_of(path), metadata_of(archive / "export.safetensors")
    assert old == expected["metadata"]
    assert {name for name in old if now.get(name) != old[name]} <= NOT_IMPORTED
    now_tensors, old_tensors = load_file(path), load_file(archive / "export.safetensors")
    assert now_tensors.keys() == old_tensors.keys()
    assert all(now_tensors[name].equal(old_tensors[name]) for name in old_tensors)
