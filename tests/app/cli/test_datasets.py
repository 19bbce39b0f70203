"""`brushwork datasets`: what it prints, writes and takes in, without a server."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.datasets.arguments import EDITS
from app.cli.main import main
from app.registry.config import Settings
from app.registry.datasets import pinned, service, uploads
from app.registry.datasets.edits.actions import EditAction
from app.registry.state import make_state
from app.registry.uploads import UploadedFile

pytestmark = pytest.mark.usefixtures("no_surroundings")
Png = Callable[..., bytes]


@pytest.fixture
def boats(data_dir: Path, tmp_path: Path, png: Png) -> Path:
    """A data folder whose dataset “Boats” has two images, one captioned, and a pinned version."""
    state = make_state(Settings(data_dir=data_dir))
    with state.database.write() as session:
        dataset = service.create_dataset(session, "Boats", trigger_word="boatish")
    for name, content in (("one.png", png(1)), ("one.txt", b"a boat"), ("two.png", png(2))):
        (tmp_path / name).write_bytes(content)
    files = [UploadedFile(name, tmp_path / name) for name in ("one.png", "one.txt", "two.png")]
    uploads.receive(state, dataset.key, files)
    with state.database.write() as session:
        pinned.pin_version(session, dataset)
    state.close()
    return data_dir


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command prints; its errors if it fails."""
    assert main(["datasets", *words]) == code
    output = capsys.readouterr()
    return output.err if code else output.out


def test_it_lists_datasets(boats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-dir", str(boats)]
    assert said(capsys, "list", *folder).split() == [
        *("boats", "1", "of", "2", "captioned", "boatish", "Boats")
    ]
    assert said(capsys, *folder, "list", "cars") == "No dataset matches.\n"
    (found,) = json.loads(said(capsys, "list", "boat", "--json", *folder))
    assert (found["slug"], found["image_count"], found["run_count"]) == ("boats", 2, 0)


def test_it_checks_a_dataset_and_says_so_in_its_exit_code(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    assert main(["datasets", "check", "boats", *folder]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 images and 1 caption checked, ")
    assert lines[1].startswith("warning: 1 image has no caption. ")
    assert main(["datasets", "check", "boats", "--json", *folder]) == 3
    report = json.loads(capsys.readouterr().out)
    found = {(one["check"], one["count"]) for one in report["findings"]}
    assert {("no_caption", 1), ("trigger_word", 1), ("size", 2)} <= found


def test_it_shows_images_captions_and_versions(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    lines = said(capsys, "show", "boats", *folder).splitlines()
    assert lines[1] == "2 images, 1 captioned; trigger word boatish"
    assert lines[2].split() == ["one.png", "80x64", "a", "boat"]
    assert lines[3].split() == ["two.png", "80x64", "(no", "caption)"]
    assert lines[5].endswith("2 images     not used now")
    found = json.loads(said(capsys, "show", "boats", "--json", *folder))
    assert [image["caption"] for image in found["images"]] == ["a boat", ""]
    assert [version["image_count"] for version in found["versions"]] == [2]


def test_a_dataset_that_does_not_exist_is_an_error(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = said(capsys, "show", "boats", "--data-dir", str(data_dir), code=1)
    assert error == "There is no such dataset; it may have been deleted.\n"


def test_it_exports_a_dataset_and_a_version(
    boats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    assert (
        said(capsys, "export", "boats", *folder, "-o", str(tmp_path)) == f"{tmp_path}/boats.zip\n"
    )
    with zipfile.ZipFile(tmp_path / "boats.zip") as archive:
        assert {"one.png", "one.txt", "two.png", "metadata.jsonl"} <= set(archive.namelist())
    said(capsys, "export", "boats", "--version", "1", *folder, "-o", str(tmp_path / "old.zip"))
    assert (tmp_path / "old.zip").stat().st_mode & 0o077, "others may read what is passed on"
    error = said(capsys, "export", "boats", "--version", "7", *folder, code=1)
    assert error == "There is no such version of a dataset.\n"
    assert not list(tmp_path.glob("*.part"))


def test_it_imports_an_export_and_folders(
    boats: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], png: Png
) -> None:
    folder = ["--data-dir", str(boats)]
    said(capsys, "export", "boats", *folder, "-o", str(tmp_path / "old.zip"))
    zipped = str(tmp_path / "old.zip")
    assert said(capsys, "import", zipped, *folder) == "boats-2: 2 images added\n"
    again = said(capsys, "import", zipped, "--into", "boats-2", *folder)
    assert again == "boats-2: 0 images added, 2 there already\n"

    images = tmp_path / "3_harbor"
    images.mkdir()
    (images / "a.png").write_bytes(png(3))
    (images / "a.txt").write_text("a harbor")
    words = ["import", str(images), "--name", "Harbor", "--trigger-word", "harborish", *folder]
    assert said(capsys, *words) == "harbor: 1 image added\n"
    found = json.loads(said(capsys, "show", "harbor", "--json", *folder))
    assert found["trigger_word"] == "harborish"
    assert [(one["caption"], one["repeats"]) for one in found["images"]] == [("a harbor", 3)]

    (images / "b.png").write_bytes(b"<svg>")
    error = said(capsys, "import", str(images), "--into", "harbor", *folder, code=1)
    assert error.startswith("b.png: This is ")
    assert said(capsys, "import", "nowhere", *folder, code=1) == "nowhere does not exist.\n"


def test_it_shows_an_edit_makes_it_and_undoes_it(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    shown = said(capsys, "edit", "boats", "add-trigger", *folder)
    assert shown.startswith("Changes 2 captions. Nothing is changed without --apply.")
    assert "    - a boat\n    + boatish, a boat\n" in shown
    assert said(capsys, "undo", "boats", *folder, code=1) == (
        "This dataset has no step that can be undone.\n"
    )
    edit = ("edit", "boats", "replace", "boat$", "--regex", "--replacement", "ship")
    assert said(capsys, *edit, "--filter", "q=a boat", "--apply", *folder) == (
        "Replaced “boat$” in 1 caption.\nTo undo it: brushwork datasets undo boats 1\n"
    )
    assert "a ship" in said(capsys, "show", "boats", *folder)
    assert said(capsys, "undo", "boats", *folder) == "Undone: replaced “boat$” in 1 caption.\n"
    assert "from 1 to 100" in said(capsys, "edit", "boats", "repeats", "x", *folder, code=1)


def test_a_slip_in_a_filter_changes_nothing(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    edit = ("edit", "boats", "delete", "--apply", "--filter")
    error = said(capsys, *edit, "no_trigger", *folder, code=1)
    assert error == "There is no filter “no_trigger”. Write it like show=no_trigger&q=fox.\n"
    assert "There is no filter “tiny”" in said(capsys, *edit, "show=tiny", *folder, code=1)
    assert said(capsys, "show", "boats", *folder).splitlines()[1].startswith("2 images")


def test_every_edit_has_a_command() -> None:
    assert {name.replace("-", "_") for name in EDITS} == set(EditAction) - {EditAction.AUTO_CAPTION}
