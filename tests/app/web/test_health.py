"""Probes and figures."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import socket
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from redis.exceptions import OutOfMemoryError

from app.registry import health
from app.registry.config import Settings
from app.registry.db import utcnow
from app.registry.errors import StorageFullError
from app.registry.state import AppState
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.runs import Run
from app.registry.wakeups import WakeUps
from app.web.problems import MEDIA_TYPE
from tests import fake_workers
from tests.conftest import AppMaker
from tests.disks import fill, mounted_disk
from tests.faults.redis_server import RedisServer

PARTS = ("database", "storage", "broker", "disk")


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def test_it_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = {"status": "ready", "detail": "", **dict.fromkeys(PARTS, "ok")}
    assert client.get("/readyz").json() == ready


def test_it_is_not_ready_on_an_old_database(client: TestClient, state: AppState) -> None:
    with state.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert (answer.json()["database"], answer.json()["storage"]) == ("failed", "ok")
    assert "migrate" in answer.json()["detail"]


def test_a_database_that_is_away_is_named_and_the_metrics_stay(
    client: TestClient, app: FastAPI, state: AppState
) -> None:
    client.post("/api/v1/datasets", json={"name": "a"})
    assert "brushwork_datasets 1.0" in client.get("/metrics").text
    url = f"postgresql://nobody@127.0.0.1:{closed_port()}/nothing"
    object.__setattr__(state.settings, "database_url", url)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, "failed")
    text = client.get("/metrics").text
    assert "brushwork_database_up 0.0" in text
    assert "brushwork_storage_up 1.0" in text
    assert "brushwork_datasets 1.0" in text


def test_a_locked_database_can_be_read(client: TestClient, state: AppState) -> None:
    other = sqlite3.connect(state.settings.data_dir / "brushwork.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        assert client.get("/readyz").json()["status"] == "ready"


def test_a_pool_that_is_used_up_does_not_hide_the_database(
    client: TestClient, state: AppState
) -> None:
    taken = [state.database.engine.pool.connect() for _ in range(40)]
    assert client.get("/readyz").json()["database"] == "ok"
    for connection in taken:
        connection.close()


def test_without_the_broker_it_is_degraded(
    client: TestClient, app: FastAPI, state: AppState
) -> None:
    wakeups = WakeUps(f"redis://127.0.0.1:{closed_port()}/0")
    app.state.brushwork = dataclasses.replace(state, wakeups=wakeups)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["broker"]) == ("degraded", "degraded")
    assert "workers look for them" in answer.json()["detail"]
    assert "brushwork_broker_up 0.0" in client.get("/metrics").text


def test_on_a_full_disk_it_is_degraded_and_space_can_be_freed(
    make_app: AppMaker, state: AppState, tmp_path: Path
) -> None:
    with mounted_disk(tmp_path / "disk", "size=48m") as disk:
        shutil.copytree(state.settings.data_dir, disk / "data")
        settings = state.settings.model_copy(update={"data_dir": disk / "data"})
        with TestClient(make_app(settings), base_url="http://localhost") as client:
            made = [client.post("/api/v1/datasets", json={"name": f"Ink {n}"}) for n in range(3)]
            assert {answer.status_code for answer in made} == {201}, made[0].text
            fill(disk)
            answer = client.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
            assert answer.json()["disk"] == "degraded"
            refused = (
                client.post("/api/v1/datasets", json={"name": "Ink " * 25}) for _ in range(400)
            )
            assert 507 in (answer.status_code for answer in refused)
            for path in ("/system", "/datasets"):
                assert client.get(path, headers={"accept": "text/html"}).status_code == 200
            assert client.delete("/api/v1/datasets/1").status_code == 200
            assert client.post("/datasets/ink-1/delete").status_code == 200


def test_what_hangs_is_named_in_time_and_asked_only_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    monkeypatch.setattr("app.web.health.DEADLINE_SECONDS", 0.1)
    monkeypatch.setattr(health, "CHECKS", {**health.CHECKS, "storage": lambda state: hangs.wait()})
    answers = [client.get("/readyz") for _ in range(3)]
    assert [one.name for one in threading.enumerate()].count("probe-storage") == 1
    hangs.set()
    assert {answer.status_code for answer in answers} == {503}
    assert "did not answer" in answers[0].json()["detail"]


def test_the_probe_of_a_folder_is_really_written(tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "size=1m") as disk:
        store = LocalBlobStore(disk / "blobs")
        store.check()
        fill(disk)
        store.check_readable()
        with pytest.raises(StorageFullError):
            store.check()


def test_prometheus_reads_queues_workers_failures_and_the_disk(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state)
    run, failed = (fake_workers.queued_run(state, dataset) for _ in range(2))
    fake_workers.worker_seen(state, "train")
    with state.database.write() as session:
        row = session.get_one(Run, failed.key)
        row.status, row.error_code = "failed", "worker_lost"
        session.get_one(Run, run.key).created_at = utcnow() - timedelta(seconds=500)
    text = client.get("/metrics").text
    assert 'brushwork_jobs{queue="train",status="queued"} 1.0' in text
    assert 'brushwork_workers{queue="train"} 1.0' in text
    assert 'brushwork_workers{queue="render"} 0.0' in text
    assert 'brushwork_job_failures{code="worker_lost",queue="train"} 1.0' in text
    (age,) = re.findall(r'brushwork_oldest_waiting_seconds\{queue="train"\} (\S+)', text)
    assert float(age) >= 500
    assert "brushwork_disk_free_bytes" in text
    assert "brushwork_database_up 1.0" in text


def test_the_api_describes_itself(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for place in (
        "/api/v1/datasets/{dataset_id}/images",
        "/api/v1/runs/{run_id}/metrics",
        "/api/v1/adapters/{adapter_id}/download",
        "/api/v1/renders/{render_id}",
    ):
        assert place in paths


def test_an_unknown_address_is_a_problem(client: TestClient) -> None:
    answer = client.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_starting_registers_the_embedded_base_once_and_ready_to_use(
    settings: Settings, make_app: AppMaker
) -> None:
    for _ in range(2):
        with TestClient(make_app(settings), base_url="http://localhost") as client:
            bases = client.get("/api/v1/base-models").json()
    assert [(base["slug"], base["status"]) for base in bases] == [("starter", "ready")]
    assert bases[0]["family"] == "sd1"


def test_a_broker_without_memory_does_not_pass_its_check(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        wakeups = WakeUps(f"redis://127.0.0.1:{server.port}/0")
        wakeups.check()
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(OutOfMemoryError):
            wakeups.check()
        wakeups.close()
