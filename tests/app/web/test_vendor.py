"""Other people's files are the ones their README names, each with its license."""

from __future__ import annotations

import hashlib
import re

from app.registry.paths import STATIC

VENDOR = STATIC / "vendor"
ROW = re.compile(r"\| (\S+) \| (\S+) \| `(\S+)` \| .+ \| `([0-9a-f]{64})` \|")


def listed() -> dict[str, str]:
    return {match[3]: match[4] for match in ROW.finditer((VENDOR / "README.md").read_text())}


def test_each_vendored_file_has_the_hash_that_is_written_down() -> None:
    assert listed()
    for path, expected in listed().items():
        assert hashlib.sha256((VENDOR / path).read_bytes()).hexdigest() == expected, path


def test_no_file_came_in_without_being_written_down() -> None:
    found = {
        str(path.relative_to(VENDOR))
        for path in VENDOR.rglob("*")
        if path.is_file()
        and path.name not in ("README.md", "NOTICE")
        and "LICENSE" not in path.name
    }
    assert found == set(listed())


def test_each_package_brings_its_license() -> None:
    for folder in VENDOR.iterdir():
        if folder.is_dir():
            assert (folder / "LICENSE").read_text().strip(), folder.name
