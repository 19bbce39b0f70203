"""The proof of a file is kept with it, told over REST and shown program by program."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters import service
from app.registry.adapters.downloads import facts_sha256, version_metadata
from app.registry.code_version import code_version
from app.registry.errors import NotReady
from app.registry.job_kinds.kinds import ExportAdapterArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.adapters import AdapterFile, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.web.adapters.downloads.api import _FileRequest
from tests import fake_workers
from worker.core.words import FileFormat, WeightDtype

BACK = {
    "tensors": 528,
    "modules": 176,
    "worst_error": 3e-4,
    "worst_module": "unet.x",
    "limit": 2e-3,
}
LOADED = {"diffusers": "0.42.1", "modules": 176, "worst_error": 3e-4, "worst_module": "unet.x"}
DRAWN = {"prompt": "castle", "seed": 0, "difference": 1, "effect": 191, "limit": 8}


def result(
    title: str, verdict: str, sentence: str, *, needed: bool = True, right: int = 176
) -> dict[str, Any]:
    counts = dict.fromkeys(("wrong", "missed", "beyond"), 0)
    return counts | {
        "name": title.lower(),
        "title": title,
        "verdict": verdict,
        "sentence": sentence,
        "needed": needed,
        "used": 528,
        "tensors": 528,
        "modules": 176,
        "right": right,
        "strength": 1.0,
        "worst_error": 3e-4,
        "worst_module": "unet.x",
        "seen_as": "SD 1.x",
    }


RIGHT = "528 of 528 tensors used, alpha correct, detected as SD 1.x"
PROOF = {
    "passed": True,
    "read_back": BACK,
    "loaded": LOADED | {"weights": True},
    "drawn": DRAWN,
    "loaders": [
        result("A1111", "right", RIGHT),
        result("Forge", "unread", "None of the 352 tensors is recognized.", needed=False),
        result(
            "InvokeAI",
            "foreign",
            "No base model of this size is supported (text width 192).",
            right=0,
        ),
    ],
}


@pytest.fixture
def adapter(state: AppState) -> int:
    """An adapter whose kohya file was proved and whose PEFT file is older than proofs."""
    key = fake_workers.adapter(state, "Chalk").key
    with state.database.write() as session:
        version = session.exec(select(AdapterVersion)).one()
        (kohya,) = session.exec(select(AdapterFile)).all()
        kohya.proof = PROOF
        peft = {"version_id": version.key, "format": "peft", "dtype": "fp16"}
        session.add(AdapterFile(**peft, sha256=kohya.sha256, size_bytes=7))
        session.add(kohya)
    return key


TOO_LARGE = (
    "Storing unet.x as fp16 changes it by 0.1 (relative error). Choose fp32 for this adapter."
)


def orders(state: AppState) -> list[IoJob]:
    with state.database.read() as session:
        return list(session.exec(select(IoJob).where(IoJob.kind == "export_adapter")))


def fail(state: AppState, code: str, sentence: str, **result: str) -> None:
    """An io worker fails with the download that waits; `facts_sha256`: any."""
    with state.database.write() as session:
        found = jobs.claim_next(session, IoJob, lease_seconds=60)
        while found is not None and found[0].kind != "export_adapter":
            found = jobs.claim_next(session, IoJob, lease_seconds=60)
        assert found is not None
        metadata = version_metadata(session, session.get_one(AdapterVersion, found[0].subject_id))
        if "facts_sha256" in result:
            result["facts_sha256"] = facts_sha256(metadata)
        failed = {"error": sentence, "error_code": code, "result": result}
        jobs.finish(session, IoJob, found[1], JobStatus.FAILED, **failed)


def test_the_proof_of_a_download_is_told_over_rest(client: TestClient, adapter: int) -> None:
    answer = client.get(f"/api/v1/adapters/{adapter}/proof")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["format"], told["dtype"], told["version"], told["passed"]) == (
        "kohya",
        "fp16",
        1,
        True,
    )
    assert told["loaders"][0]["sentence"] == RIGHT
    assert (told["read_back"], told["drawn"]) == (BACK, DRAWN)
    assert (told["not_loaded"], told["not_drawn"]) == ("", "")
    assert client.get("/api/v1/adapters/99/proof").status_code == 404
    assert client.get(f"/api/v1/adapters/{adapter}/proof?format=ckpt").status_code == 422


def test_a_file_older_than_proofs_is_written_anew(
    client: TestClient, adapter: int, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    for path in ("download", "proof"):
        answer = client.get(f"/api/v1/adapters/{adapter}/{path}?format=peft")
        assert answer.status_code == 503
    with state.database.read() as session:
        orders = session.exec(select(IoJob).where(IoJob.kind == "export_adapter")).all()
    assert [job.args for job in orders] == [{"format": "peft", "dtype": "fp16"}]


def test_a_file_that_fails_is_refused_with_its_sentence(
    client: TestClient, adapter: int, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    place = f"/api/v1/adapters/{adapter}"
    client.get(f"{place}/download?format=bundle")
    fail(state, "proof", TOO_LARGE, code_version=code_version(), facts_sha256="as now")
    for path in ("download", "proof"):
        answer = client.get(f"{place}/{path}?format=bundle")
        assert answer.status_code == 422
        assert TOO_LARGE in answer.json()["detail"]
    assert len(orders(state)) == 1
    client.patch(place, json={"license": "CC0-1.0"})  # the file would say something else now
    assert client.get(f"{place}/download?format=bundle").status_code == 503
    # the usual download was ordered at once by the change, the bundle when it was asked for
    assert [job.args["format"] for job in orders(state)] == ["bundle", "kohya", "bundle"]


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("storage_full", {}),
        ("worker_lost", {}),
        ("proof", {}),
        ("proof", {"code_version": "0.0.1", "facts_sha256": "as now"}),
    ],
)
def test_a_failure_that_may_have_passed_is_tried_once_by_each_who_asks(
    client: TestClient,
    adapter: int,
    state: AppState,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    result: dict[str, str],
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    place = f"/api/v1/adapters/{adapter}/download?format=bundle"
    client.get(place)
    fail(state, code, "It did not work.", **result)
    answer = client.get(place)
    assert (answer.status_code, len(orders(state))) == (503, 2)
    assert "still being written" in answer.json()["detail"]
    request = _FileRequest(
        state, 1, ExportAdapterArgs(format=FileFormat.BUNDLE, dtype=WeightDtype.FP16)
    )
    assert request.find_or_order() is None
    fail(state, code, "It did not work.", **result)
    with pytest.raises(NotReady, match=r"could not be written: It did not work\."):
        request.find_or_order()
    assert len(orders(state)) == 2


def test_a_file_with_the_captions_tags_is_another_file(
    client: TestClient, adapter: int, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.polling.FILE_PATIENCE_SECONDS", 0.0)
    place = f"/api/v1/adapters/{adapter}/download"
    assert client.get(place).status_code == 200
    assert client.get(f"{place}?with_tags=true").status_code == 503
    with state.database.write() as session:
        (plain,) = session.exec(select(AdapterFile).where(AdapterFile.format == "kohya")).all()
        row = plain.model_dump(exclude={"id", "with_tags"})
        session.add(AdapterFile(**row, with_tags=True))
    answer = client.get(f"{place}?with_tags=true")
    assert 'filename="chalk-v1-tags.safetensors"' in answer.headers["content-disposition"]


def test_the_page_says_program_by_program_what_the_file_means_there(
    client: TestClient, adapter: int
) -> None:
    page = client.get("/adapters/chalk", headers={"accept": "text/html"}).text
    assert "In other programs" in page
    assert RIGHT in page
    for words in (
        "Works",
        "Not read",
        "This base is not supported there",
        "This file is not meant for it.",
    ):
        assert words in page
    assert "works in 1 of 3 programs" in page
    assert "Other programs cannot load this base model" in page
    assert "Read back: 528 tensors of 176 layers, each within 0.03 %" in page
    assert "Loaded by diffusers 0.42.1 into the base&#39;s own weights" in page
    assert "largest difference 1 of 255" in page
    assert "Loads in A1111." in page  # in one line; the rest is folded
    assert page.count('class="proof"') == 3  # all checks, the file's, what sharing would tell
    assert "Anyone with the file can read what you wrote and what your images show" in page
    assert "with_tags=true" in page


def test_a_file_that_cannot_be_right_is_not_offered_but_told_with_its_sentence(
    client: TestClient, state: AppState
) -> None:
    key = fake_workers.adapter(state, "Chalk").key
    lasting = {"code_version": code_version(), "facts_sha256": "as now"}
    with state.database.write() as session:
        for dtype in (WeightDtype.FP16, WeightDtype.BF16):
            service.order_file(session, 1, ExportAdapterArgs(format=FileFormat.KOHYA, dtype=dtype))
    fail(state, "proof", TOO_LARGE, **lasting)
    fail(state, "storage_full", "The disk is full.")
    page = client.get("/adapters/chalk", headers={"accept": "text/html"}).text
    place = f"/api/v1/adapters/{key}/download?format=kohya&amp;dtype"
    assert f'href="{place}=fp16&amp;version=1"' not in page
    assert page.count(f'href="{place}=bf16&amp;version=1"') == 2  # in the menu, and the button
    assert "Download in bf16" in page
    assert f"Not available in fp16: {TOO_LARGE}" in page
    assert "In other programs" in page
    assert f"<strong>kohya, fp16</strong> is not available: {TOO_LARGE}" in page
    assert "works in" not in page  # the older proof of that file is not told beside it
    assert "The disk is full." not in page
