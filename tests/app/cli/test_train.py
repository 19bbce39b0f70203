"""`brushwork train --model owner/name`: from this machine, and from the Hub only when told to."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from app.cli import train
from app.cli.train import MissingModelError, with_model_here
from app.registry.config import Settings
from tests.fake_hub import Hub, open_hub

REPO = "acme/mix"


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub with a model of one file."""
    with open_hub() as opened:
        opened.add(REPO, {"mix.safetensors": b"m" * 500})
        yield opened


@pytest.fixture
def settings(hub: Hub, tmp_path: Path) -> Settings:
    """Settings with a data folder of their own."""
    return Settings(_env_file=None, data_dir=tmp_path / "data", hub_endpoint=hub.url)


def test_nothing_is_downloaded_unasked(
    hub: Hub, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", REPO, "--data", "pictures"]
    with pytest.raises(
        MissingModelError, match=r"“acme/mix” is not on this machine\. Add --download"
    ):
        with_model_here(words, settings)
    assert hub.asked == []
    with_model_here([*words, "--download"], settings)
    assert "500 B of 500 B (100 %)" in capsys.readouterr().err
    hub.asked.clear()
    path = settings.hub_models / "acme--mix" / hub.repos[REPO].commit / "mix.safetensors"
    assert path.read_bytes() == b"m" * 500
    assert with_model_here(words, settings) == [f"--model={path}", "--data", "pictures"]
    assert with_model_here([f"--model={REPO}", "--lr", "1"], settings) == [
        f"--model={path}",
        "--lr",
        "1",
    ]
    for same in ([f"--base-model={REPO}"], ["--base-model", REPO]):
        assert with_model_here(same, settings) == [f"--model={path}"]
    assert hub.asked == []


def test_a_job_may_name_a_model_of_the_hub_too(
    hub: Hub, settings: Settings, tmp_path: Path
) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"model": REPO, "data": "pictures", "out": "results"}))
    with pytest.raises(MissingModelError, match="is not on this machine"):
        with_model_here(["--lr", "1", str(job)], settings)
    given = with_model_here(["--download", str(job)], settings)
    path = settings.hub_models / "acme--mix" / hub.repos[REPO].commit / "mix.safetensors"
    assert given == [str(job), f"--model={path}"]
    assert with_model_here([str(job), "--model", "starter"], settings) == [
        str(job),
        "--model",
        "starter",
    ]
    for content in ("{", "[]", '{"model": 3}'):
        job.write_text(content)
        assert with_model_here([str(job)], settings) == [str(job)]


def test_what_the_hub_refuses_ends_the_command_with_a_sentence(
    hub: Hub, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = Namespace(command="train", words=["--download", "--model", "acme/nothing"])
    assert train.run(arguments, settings) == 2
    assert "“acme/nothing” was not found" in capsys.readouterr().err
    off = settings.model_copy(update={"hub": "off"})
    with pytest.raises(MissingModelError, match="BRUSHWORK_HUB=off"):
        with_model_here(["--download", "--model", "acme/nothing"], off)


def test_a_path_stays_a_path(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "models" / "sd").mkdir(parents=True)
    for words in (
        ["--model", "models/sd"],
        ["--model", "starter"],
        ["--model=/models/sd"],
        ["job.json", "--lr", "1"],
        ["--model"],
    ):
        assert with_model_here(words, settings) == words
    assert hub.asked == []
