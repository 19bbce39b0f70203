"""`brushwork datasets caption`: an io worker and a stand-in server caption a dataset."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.cli.main import main
from app.registry.config import Settings
from app.registry.datasets import service, uploads
from app.registry.datasets.auto_caption import orders
from app.registry.state import make_state
from app.registry.uploads import UploadedFile
from tests.caption_servers import CaptionServer, caption_server

OLLAMA = ["--provider", "ollama", "--model", "llava"]


@pytest.fixture
def server(no_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[CaptionServer]:
    with caption_server() as running:
        running.answer = lambda image, prompt: f"{prompt}, boatish style"
        monkeypatch.setenv("BRUSHWORK_OLLAMA_URL", running.url)
        yield running


@pytest.fixture
def folder(
    server: CaptionServer, data_dir: Path, tmp_path: Path, png: Callable[..., bytes]
) -> list[str]:
    """Arguments for a data folder whose dataset “Boats” has two images, one captioned."""
    state = make_state(Settings(data_dir=data_dir))
    with state.database.write() as session:
        dataset = service.create_dataset(session, "Boats", trigger_word="boatish")
    for name, content in (("one.png", png(1)), ("one.txt", b"a boat"), ("two.png", png(2))):
        (tmp_path / name).write_bytes(content)
    files = [UploadedFile(name, tmp_path / name) for name in ("one.png", "one.txt", "two.png")]
    uploads.receive(state, dataset.key, files)
    state.close()
    return ["--data-dir", str(data_dir)]


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """The output of the command; its errors if it fails."""
    assert main(["datasets", "caption", "boats", *words]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


def test_it_says_that_no_worker_is_there_and_leaves_the_order(
    folder: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Start Brushwork" in said(capsys, *OLLAMA, *folder, code=1)
    state = make_state(Settings(data_dir=Path(folder[1])))
    with state.database.read() as session:
        assert orders.active_order(session, 1) is not None
    state.close()
    assert "being written" in said(capsys, *OLLAMA, *folder, code=1)
    assert "Enter the name of a model" in said(capsys, "--provider", "ollama", *folder, code=1)
    local = ["--provider", "local", *folder]
    assert "add one under Caption models" in said(capsys, *local, code=1)
    assert "Unknown caption model “blip”" in said(capsys, *local, "--model", "blip", code=1)


@pytest.mark.usefixtures("worker")
def test_it_prints_captions_and_writes_them_if_asked(
    folder: list[str], server: CaptionServer, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*OLLAMA, "--prompt", "a ship", *folder]
    assert said(capsys, *asked, "--preview", "1") == "a ship\n"
    assert said(capsys, *asked, "--do-not-name", "style") == "two.png: a ship, boatish\n"
    assert said(capsys, *asked, "--mode", "append", "--images", "1", "--apply").splitlines() == [
        "one.png: a boat, a ship",
        "two.png: a ship, boatish",
        "2 captions written.",
    ]
    server.faults = ["html"]
    assert "answered with a web page" in said(capsys, *asked, "--preview", "1", code=1)
    nothing = said(capsys, *asked, "--preview", "1", "--do-not-name", "a ship,boatish,style")
    assert nothing == "No caption: The answer had only words that are not to be named.\n"
    server.faults = ["html"]
    failed = said(capsys, *asked, "--mode", "replace", "--images", "2", code=1)
    assert failed.startswith("two.png: no caption. 127.0.0.1")


@pytest.mark.usefixtures("worker")
def test_guesses_from_a_confidence_on_are_printed_and_taken(
    folder: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, *folder) == ""
    with pytest.raises(SystemExit):
        said(capsys, "--above", "2", *folder)
    assert "invalid share value: '2'" in capsys.readouterr().err
    (shown,) = said(capsys, "--above", "0", *folder).splitlines()
    assert re.fullmatch(r"two\.png: .+ \(\d+%\)", shown)
    lines = said(capsys, "--above", "0", "--apply", *folder).splitlines()
    assert lines == [shown, "0 captions written.", "Of guesses, 1 caption written."]
