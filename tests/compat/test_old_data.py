"""The data of commit 57f004e is still read: a data folder, a config and the metadata of a file.

`make_fixture.py` says how the archive was written, and `RENAMED` which names have changed since.
"""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import select

from app.registry import migrate
from app.registry.adapters import service as adapters
from app.registry.adapters.models import AdapterFile, AdapterVersion
from app.registry.base_models.models import BaseModel
from app.registry.datasets.measures import service as measures
from app.registry.datasets.models import ImageMeasure
from app.registry.jobs.models import Event, IoJob
from app.registry.renders.models import Render
from app.registry.runs.models import Run
from app.registry.sweep import sweep
from app.registry.thumbnails import backfill
from app.registry.thumbnails import service as thumbnails
from app.registry.thumbnails.models import Thumbnail
from tests.compat.conftest import (
    CONFIG_KEY,
    RENAMED,
    OldData,
    assert_holds,
    copy_data,
    metadata_of,
    open_folder,
    renamed,
)
from tests.compat.old_starter import FINGERPRINT
from tests.old_rows import assert_kept, read_rows
from worker.core.training.config import TrainConfig
from worker.core.words import FileFormat, WeightDtype
from worker.runtime.io_jobs import IoJobs
from worker.runtime.render_jobs import RenderJobs

PAGES = {
    "/": ["Harbor"],
    "/running": [],
    "/datasets": ["Harbor", "Plain boats", "hrbr"],
    "/datasets/harbor": ["Harbor", "hrbr, a café at the quay", "picture 1.png"],
    "/train/new?dataset=harbor": ["Harbor", "Plain boats"],
    "/train/new?from=1": ["Harbor light"],
    "/runs": ["Harbor light", "Harbor again"],
    "/runs/1": ["Harbor light", "hrbr, a boat"],
    "/runs/2": ["Harbor again"],
    "/adapters": ["Harbor light", "ink wash", "boats"],
    "/adapters?q=harbour": ["Harbor light"],
    "/adapters/harbor-light": ["Harbor light", "hrbr", "harbour light", "CC-BY-4.0", "best"],
    "/adapters/harbor-light/tools": ["Harbor light"],
    "/adapters/harbor-light/hub": ["ada/harbor"],
    "/adapters/ink-wash": ["ink wash", "inkwsh", "MIT", "Wet ink on paper."],
    "/adapters/deleted": [],
    "/play?adapter=1": ["Harbor light"],
    "/renders/2": ["hrbr, a boat at night"],
    "/renders/4": ["hrbr, a lighthouse"],
    "/imports/4": ["ink wash"],
    "/imports/12": ["chalk.safetensors"],
    "/tool-jobs/14": ["/tool-jobs/14/cancel"],
    "/hub-imports/20": ["acme/ink"],
    "/base-models": ["starter", "tuned", "acme/tiny"],
    "/system": [],
    "/readyz": ["ready"],
    "/metrics": [],
}


# the data folder


def test_the_database_is_migrated_to_the_tables_of_today(old_data: OldData) -> None:
    assert migrate.is_current(old_data.state.database.engine)
    migrate.check(old_data.state.database.engine)


def test_every_row_is_still_there(archive: Path, old_data: OldData, tmp_path: Path) -> None:
    copy_data(archive, tmp_path)
    old = sa.create_engine(f"sqlite:///{tmp_path / 'data' / 'brushwork.db'}")
    with old.connect() as connection:
        before = read_rows(connection)
    old.dispose()
    for row in before["base_model"].values():
        row["source"] = row["source"].replace(str(tmp_path), str(old_data.folder))
    with old_data.state.database.engine.connect() as connection:
        assert_kept(before, read_rows(connection))


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_the_old_data(old_data: OldData, path: str) -> None:
    answer = old_data.client.get(path, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    missing = [text for text in PAGES[path] if text not in answer.text]
    assert missing == []


def test_the_api_answers_what_it_answered(old_data: OldData) -> None:
    old = old_data.expected
    base_models = json.loads(json.dumps(old["base_models"]).replace("/srv/brushwork", ""))
    now = old_data.get("/base-models")
    for row in now:
        row["source"] = row["source"].removeprefix(str(old_data.folder))
    assert_holds(now, renamed(base_models))
    assert_holds(old_data.get("/datasets"), renamed(old["datasets"]))
    for key, images in old["images"].items():
        assert_holds(old_data.get(f"/datasets/{key}/images"), renamed(images))
    assert_holds(old_data.get("/runs/1"), renamed(old["run"]))
    assert_holds(old_data.get("/runs/1/metrics"), renamed(old["metrics"]))
    assert_holds(old_data.get("/runs/1/samples"), renamed(old["samples"]))
    assert_holds(old_data.get("/runs/1/checkpoints"), renamed(old["checkpoints"]))
    for adapter in old["adapters"]:
        assert_holds(old_data.get(f"/adapters/{adapter['id']}"), renamed(adapter))
    assert_holds(old_data.get("/adapters/1/aliases"), renamed(old["aliases"]))
    assert_holds(old_data.get("/renders/2"), renamed(old["render"]))


def test_the_old_embedded_base_stays_with_what_was_made_with_it(
    archive: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Another base model is embedded now than the one that the data was made with."""
    copy_data(archive, tmp_path, made_with=FINGERPRINT)
    with closing(open_folder(tmp_path, expected)) as opened:
        data = next(opened)
        retired, new = data.row(BaseModel, 1), data.rows(BaseModel, source="starter")[0]
        assert (retired.name, retired.is_retired) == ("starter (64 px)", True)
        assert (new.key != 1, new.name, new.status) == (True, "starter", "ready")
        assert data.get("/base-models/1")["is_retired"]
        for page in ("/adapters/harbor-light", "/runs/1", "/runs/2", "/renders/2"):
            assert "base no longer shipped" in data.client.get(page).text
        for adapter in expected["adapters"]:
            assert_holds(data.get(f"/adapters/{adapter['id']}"), renamed(adapter))
        orders = len(data.rows(IoJob, kind="export_adapter"))
        for file in data.rows(AdapterFile):
            adapter_id = data.row(AdapterVersion, file.version_id).adapter_id
            query = f"?format={file.format}&dtype={file.dtype}&with_tags={file.with_tags}"
            answer = data.client.get(f"/api/v1/adapters/{adapter_id}/download{query}")
            assert (answer.status_code, len(answer.content)) == (200, file.size_bytes)
        assert len(data.rows(IoJob, kind="export_adapter")) == orders
        data.run_queued(RenderJobs)
        reasons = {row.error for row in data.rows(Render, status="failed")}
        assert len(reasons) == 1
        assert "“starter (64 px)” is no longer shipped with Brushwork" in reasons.pop()


def test_every_stored_image_is_served(old_data: OldData) -> None:
    old = old_data.expected
    entries = [image for images in old["images"].values() for image in images]
    entries += [*old["samples"], *old["render"]["images"]]
    urls = {entry[name] for entry in entries for name in entry if name.endswith("url")}
    urls |= {adapter["cover_url"] for adapter in old["adapters"]}
    for url in urls:
        answer = old_data.client.get(url)
        assert (answer.status_code, answer.headers["content-type"][:6]) == (200, "image/"), url


def test_every_download_is_current_and_served_without_a_new_export(old_data: OldData) -> None:
    files = old_data.rows(AdapterFile)
    kinds = {(file.version_id, file.format, file.dtype, file.with_tags) for file in files}
    usual = {(1, "kohya"), (1, "peft"), (2, "kohya"), (2, "peft")}
    assert kinds == {(*of, "fp16", False) for of in usual} | {(1, "kohya", "fp16", True)}
    orders = len(old_data.rows(IoJob))
    for file in files:
        asked = (file.version_id, FileFormat(file.format), WeightDtype(file.dtype))
        with old_data.state.database.read() as session:
            current = adapters.find_file(session, *asked, with_tags=file.with_tags)
        assert current is not None, kinds
        assert (current.id, current.sha256) == (file.id, file.sha256)
        adapter_id = old_data.row(AdapterVersion, file.version_id).adapter_id
        query = f"?format={file.format}&dtype={file.dtype}&with_tags={file.with_tags}"
        answer = old_data.client.get(f"/api/v1/adapters/{adapter_id}/download{query}")
        assert (answer.status_code, len(answer.content)) == (200, file.size_bytes)
        assert old_data.get(f"/adapters/{adapter_id}/proof")
    assert len(old_data.rows(IoJob)) == orders


def test_a_sweep_deletes_only_the_unreferenced_file(own_copy: OldData) -> None:
    database, store = own_copy.state.database, own_copy.state.store
    before = {blob.sha256 for blob in store.list()}
    with database.read() as session:
        newest = max(session.exec(select(Event.at)).all())
    assert sweep(database, store, now=newest + timedelta(days=2)).files == 1
    left = {blob.sha256 for blob in store.list()}
    assert before - left == {own_copy.expected["orphan"]}


def test_old_images_get_thumbnails_and_measures_once(own_copy: OldData) -> None:
    database = own_copy.state.database
    with database.write() as session:
        for job in session.exec(select(IoJob)):
            session.delete(job)  # those of the archive need other workers
    assert backfill.order_if_due(database) is not None
    own_copy.run_queued(IoJobs)
    (job,) = own_copy.rows(IoJob)
    assert (job.status, job.error) == ("succeeded", None)
    with database.read() as session:
        made = session.exec(select(Thumbnail)).all()
        measured = session.exec(select(ImageMeasure)).all()
        assert thumbnails.list_missing(session, limit=1) == []
        assert measures.list_unmeasured(session, limit=1) == []
    assert made
    assert measured
    assert len(made) + len(measured) == job.result["done"]
    assert any(row.small_sha256 for row in made)
    for row in made:
        answer = own_copy.client.get(f"/media/{row.sha256}/small")
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert backfill.order_if_due(database) is None


def test_requests_with_the_old_names_are_accepted(own_copy: OldData) -> None:
    client = own_copy.client
    changed = client.patch("/api/v1/adapters/2", json={"licence": "CC0-1.0", "notes": "Ink."})
    assert changed.status_code == 200, changed.text
    assert "CC0-1.0" in client.get("/adapters/ink-wash").text
    order = {
        "dataset_id": 1,
        "regularisation_dataset_id": 2,
        "config": {"regularisation_weight": 0.75, "blocks": "mid"},
    }
    created = client.post("/api/v1/runs", json=order)
    assert created.status_code == 202, created.text
    config = own_copy.get(f"/runs/{created.json()['id']}")["config"]
    assert config[RENAMED.get("regularisation_weight", "regularisation_weight")] == 0.75


# the config


@pytest.fixture(scope="module")
def old_config(archive: Path) -> dict[str, Any]:
    """A TrainConfig that the old code dumped; no field but `kind` has its default."""
    config: dict[str, Any] = json.loads((archive / "config.json").read_text(encoding="utf-8"))
    return config


def test_a_config_is_read_and_dumps_the_same(old_config: dict[str, Any]) -> None:
    now = TrainConfig.model_validate(old_config).model_dump(mode="json")
    assert_holds(now, renamed(old_config))
    usual = TrainConfig().model_dump(mode="json")
    assert {name: now[name] for name in now.keys() - renamed(old_config)} == {
        name: usual[name] for name in now.keys() - renamed(old_config)
    }


def test_a_config_with_an_unknown_field_is_refused(old_config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="regularisation_weigth"):
        TrainConfig.model_validate(old_config | {"regularisation_weigth": 1.0})


def test_the_configs_in_the_registry_are_read(old_data: OldData) -> None:
    runs = [old_data.expected["run"], *old_data.expected["queued"]["run"]]
    for old, run in zip(runs, old_data.rows(Run), strict=True):
        now = TrainConfig.model_validate(run.config).model_dump(mode="json")
        assert_holds(now, renamed(old["config"]), run.name)
        assert run.total_steps == old["config"]["steps"]
        assert_holds(run.config, renamed(old["config"]), run.name)
    trained = old_data.row(AdapterVersion, 1)
    assert_holds(trained.config, renamed(runs[0]["config"]))
    assert_holds(old_data.get("/runs/2")["config"], renamed(runs[1]["config"]))


# the file


def test_the_config_in_the_metadata_of_a_file_is_read(archive: Path, old_data: OldData) -> None:
    old = json.loads(metadata_of(archive / "export.safetensors")[CONFIG_KEY])
    now = TrainConfig.model_validate(old).model_dump(mode="json")
    assert_holds(now, renamed(old))
    private = {"sample_prompts", "sample_negative_prompt"}
    assert old == {k: v for k, v in old_data.expected["run"]["config"].items() if k not in private}
