"""The README says what is there, all of it."""

from __future__ import annotations

import re
from pathlib import Path

from app.cli.main import build_parser
from app.registry.config import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_table_with_its_own_words() -> None:
    rows = dict(re.findall(r"^\| `(BRUSHWORK_\w+)` \|[^|]*\| (.+) \|$", README, re.MULTILINE))
    expected = {
        f"BRUSHWORK_{name.upper()}": field.description
        for name, field in Settings.model_fields.items()
    }
    assert rows == expected


def test_every_command_is_in_the_table() -> None:
    actions = next(
        action for action in build_parser()._actions if action.choices and action.dest != "help"
    )
    table = README.split("## Commands")[1].split("##")[0]
    missing = [name for name in actions.choices if f"`{name}" not in table]  # type: ignore[union-attr]
    assert missing == []


def test_every_command_in_the_table_exists() -> None:
    actions = next(
        action for action in build_parser()._actions if action.choices and action.dest != "help"
    )
    table = README.split("## Commands")[1].split("##")[0]
    first_column = "\n".join(re.findall(r"^\| (.+?) \| ", table, re.MULTILINE))
    named = set(re.findall(r"`(\w+)(?: [^`]*)?`", first_column))
    assert "adapters" in named
    assert named <= set(actions.choices)  # type: ignore[arg-type]


def test_every_place_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (run|check|test|demo)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
