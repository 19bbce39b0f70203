"""Files that belong together: weights with PEFT's config, and archives of both."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters.imports import receive_path
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from tests.app.adapters.test_pages import FRAGMENT, safetensors

CONFIG = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}).encode()


def zipped(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), member)
    return content.getvalue()


def ordered_imports(state: AppState) -> list[tuple[str, list[str]]]:
    """(file name, names of its sidecars) of every import."""
    with state.database.read() as session:
        rows = session.exec(select(IoJob).where(IoJob.kind == "import_adapter")).all()
        return [
            (job.args["filename"], [sidecar["name"] for sidecar in job.args.get("sidecars", [])])
            for job in rows
        ]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "ink.safetensors"])
def test_the_config_of_peft_goes_along_with_its_weights(
    name: str, client: TestClient, state: AppState
) -> None:
    files = [
        ("file", (name, safetensors())),
        ("file", ("adapter_config.json", CONFIG)),
    ]
    assert client.post("/imports", files=files, headers=FRAGMENT).status_code == 200
    assert ordered_imports(state) == [(name, ["adapter_config.json"])]


def test_a_config_that_could_be_of_two_files_is_refused(
    client: TestClient, state: AppState
) -> None:
    files = [
        ("file", ("ink.safetensors", safetensors())),
        ("file", ("chalk.safetensors", safetensors())),
        ("file", ("adapter_config.json", CONFIG)),
    ]
    answer = client.post("/imports", files=files, headers=FRAGMENT)
    assert "It belongs to one file of weights." in answer.text
    assert [sidecars for _, sidecars in ordered_imports(state)] == [[], []]


def test_links_go_along_with_weights_that_are_a_link(state: AppState, tmp_path: Path) -> None:
    linked, mixed = tmp_path / "linked", tmp_path / "mixed"
    for folder in (linked, mixed):
        folder.mkdir()
        for name in ("ink.json", "adapter_config.json"):
            (tmp_path / name).write_bytes(CONFIG)
            (folder / name).symlink_to(tmp_path / name)
    (mixed / "ink.safetensors").write_bytes(safetensors())
    (linked / "ink.safetensors").symlink_to(mixed / "ink.safetensors")
    receive_path(state, mixed / "ink.safetensors")
    receive_path(state, linked / "ink.safetensors")
    assert [sidecars for _, sidecars in ordered_imports(state)] == [
        [],
        ["ink.json", "adapter_config.json"],
    ]


def test_an_archive_is_imported_folder_by_folder(client: TestClient, state: AppState) -> None:
    content = zipped(
        ink__adapter_model_dot_safetensors=safetensors(),
        ink__adapter_config_dot_json=CONFIG,
        chalk__chalk_dot_safetensors=safetensors(),
        chalk__chalk_dot_json=b"{}",
        chalk__readme_dot_txt=b"hello",
    )
    answer = client.post("/imports", files={"file": ("all.zip", content)}, headers=FRAGMENT)
    assert answer.status_code == 200
    assert ordered_imports(state) == [
        ("ink.safetensors", ["adapter_config.json"]),
        ("chalk.safetensors", ["chalk.json"]),
    ]
    assert not list(state.settings.scratch.glob("import-*"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (zipped(readme_dot_txt=b"hello"), "must contain 1 to 100 .safetensors files"),
        (zipped(archive__data_dot_pkl=b"x"), "must contain 1 to 100 .safetensors files"),
        (b"PK\x03\x04 cut off", "damaged or truncated"),
    ],
)
def test_an_archive_without_lora_files_is_refused(
    content: bytes, sentence: str, client: TestClient, state: AppState
) -> None:
    answer = client.post("/imports", files={"file": ("x.zip", content)}, headers=FRAGMENT)
    assert (answer.status_code, sentence in answer.text) == (422, True)
    over_rest = client.post("/api/v1/adapters/import", files={"file": ("x.zip", content)})
    assert (over_rest.status_code, sentence in over_rest.json()["detail"]) == (422, True)
    assert ordered_imports(state) == []
