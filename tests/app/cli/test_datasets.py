"""`brushwork datasets`: what it prints, writes and takes in, without a server."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli.datasets.arguments import EDITS
from app.cli.main import main
from app.registry.config import Settings
from app.registry.datasets import pinned, service, uploads
from app.registry.datasets.edits.actions import MADE_ELSEWHERE, EditAction
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
    """The output of a command; its errors if it fails."""
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
    assert lines[1].startswith("warning: Only 2 images to train on. ")
    assert lines[2].startswith("warning: 1 image has no caption. ")
    assert main(["datasets", "check", "boats", "--json", *folder]) == 3
    report = json.loads(capsys.readouterr().out)
    found = {(one["check"], one["count"]) for one in report["findings"]}
    assert {("no_caption", 1), ("trigger_word", 1), ("size", 2)} <= found


def test_it_shows_images_captions_and_versions(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    lines = said(capsys, "show", "boats", *folder).splitlines()
    assert lines[1] == "2 images, 1 captioned; trigger word boatish, missing in 2 images"
    assert lines[2] == "Words: boat 1"
    assert lines[3] == "Filters: uncaptioned 1, near_duplicate 2, small 2"
    assert lines[5].split() == ["1", "one.png", "80x64", "a", "boat"]
    assert lines[6].split() == ["2", "two.png", "80x64", "(no", "caption)"]
    assert lines[8].endswith("2 images     not used now")
    found = json.loads(said(capsys, "show", "boats", "--json", *folder))
    assert [image["caption"] for image in found["images"]] == ["a boat", ""]
    assert [version["image_count"] for version in found["versions"]] == [2]
    assert found["statistics"]["words"] == [{"word": "boat", "images": 1}]
    assert (found["filters"]["no_trigger"], found["filters"]["uncaptioned"]) == (2, 1)


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
    nowhere = tmp_path / "none" / "a.zip"
    error = said(capsys, "export", "boats", *folder, "-o", str(nowhere), code=1)
    assert error == f"{nowhere} cannot be written: No such file or directory.\n"


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
    refused = said(capsys, "edit", "boats", "replace", "boat(?=s)", "--regex", *folder, code=1)
    assert "Look-around, such as (?=…) and (?<!…), is not supported." in refused
    for text in ("bow", "stern"):
        said(capsys, "edit", "boats", "append", text, "--apply", *folder)
    nothing = said(capsys, "undo", "boats", "2", *folder, code=1)
    assert nothing.startswith("Nothing was undone. This step can still be undone once later")
    assert "Its caption was changed since." in nothing
    assert said(capsys, "undo", "boats", "3", *folder).startswith("Undone: ")
    assert said(capsys, "undo", "boats", "2", *folder).startswith("Undone: ")


def test_captions_of_one_image_are_shown_written_and_restored(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    written = said(
        capsys, "write", "boats", "1", "boat, sea", "--kind", "tags", "--share", "3", *folder
    )
    assert "tags  share 3   75%  3 of 75 tokens  boat, sea\n" in written
    said(capsys, "write", "boats", "one.png", "a ship", *folder)
    found = json.loads(said(capsys, "captions", "boats", "1", "--json", *folder))
    assert [(one["kind"], one["caption"]) for one in found["captions"]] == [
        ("long", "a ship"),
        ("tags", "boat, sea"),
    ]
    assert [(row["kind"], row["version"], row["source"]) for row in found["history"]] == [
        ("long", 2, "hand"),
        ("tags", 1, "hand"),
        ("long", 1, "import"),
    ]
    lines = said(capsys, "restore", "boats", "one.png", "1", *folder)
    assert lines.splitlines()[1].endswith("a boat")
    assert re.search(r"restored, version 1 of \d{4}-\d\d-\d\d \d\d:\d\d \(now\): a boat", lines)
    newest, *_, first = json.loads(said(capsys, "captions", "boats", "1", "--json", *folder))[
        "history"
    ]
    assert (newest["source"], newest["restored_from"]) == ("restore", first["written_at"])
    assert "is gone" in said(capsys, "restore", "boats", "1", "9", *folder, code=1)
    assert "a share with --share" in said(capsys, "write", "boats", "1", *folder, code=1)
    error = said(capsys, "captions", "boats", "three.png", *folder, code=1)
    assert error == "boats has no image three.png; `show` lists names and numbers.\n"


def test_file_names_fill_captions(boats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-dir", str(boats)]
    edit = ("edit", "boats", "file-names")
    assert "    + two" in said(capsys, *edit, *folder)
    caption = ("caption", "boats", "--provider", "filename")
    assert said(capsys, *caption, "--preview", "2", *folder) == "two\n"
    assert said(capsys, *caption, *folder) == "two.png: two\n"
    done = said(capsys, *edit, "--apply", *folder)
    assert done.startswith("Filled 1 caption from file names.\n")


def test_an_edit_can_be_for_captions_of_one_kind(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    said(capsys, "write", "boats", "1", "boat, sea", "--kind", "tags", *folder)
    shown = said(capsys, "edit", "boats", "append", "ink", "--kind", "tags", *folder)
    assert shown.startswith("Changes 1 caption.")
    assert "one.png (tags)\n" in shown


def test_the_focus_of_an_image_is_set_and_taken_away(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    assert said(capsys, "focus", "boats", "1", *folder).startswith("one.png: focus in the center\n")
    moved = said(capsys, "focus", "boats", "1", "0.25", "1", *folder)
    assert moved.startswith("one.png: focus at 0.25 from the left, 1 from the top\nAt ")
    assert "from 0 to 1" in said(capsys, "focus", "boats", "1", "2", "0", *folder, code=1)
    assert "Give two numbers" in said(capsys, "focus", "boats", "1", "0.5", *folder, code=1)
    taken = said(capsys, "focus", "boats", "1", "--center", *folder)
    assert taken.startswith("one.png: focus in the center\n")


def test_a_dataset_is_duplicated_and_versions_are_compared(
    boats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--data-dir", str(boats)]
    assert said(capsys, "duplicate", "boats", "--name", "Ships", *folder) == "ships: 2 images\n"
    assert "at most 120" in said(capsys, "duplicate", "boats", "--name", "x" * 121, *folder, code=1)
    said(capsys, "write", "boats", "1", "a ship", *folder)
    said(capsys, "edit", "boats", "delete", "--images", "2", "--apply", *folder)
    assert said(capsys, "compare", "boats", "1", *folder).splitlines() == [
        "0 added, 1 removed, 1 changed, 0 the same",
        "- two.png",
        "~ one.png",
        "    - long: a boat",
        "    + long: a ship",
    ]
    found = json.loads(said(capsys, "compare", "boats", "1", "1", "--json", *folder))
    assert (found["same"], found["changes"]) == (2, [])
    assert "no such version" in said(capsys, "compare", "boats", "9", *folder, code=1)


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
    assert {name.replace("-", "_") for name in EDITS} == set(EditAction) - set(MADE_ELSEWHERE)
