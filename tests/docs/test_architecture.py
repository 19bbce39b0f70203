"""The pictures of the architecture name the layers and tables that the code has."""

from __future__ import annotations

import re
import tomllib

from sqlmodel import SQLModel

import app.registry.tables.all  # noqa: F401  (fills the metadata)
from tests.docs.pages import DOCS, FENCE, ROOT, rows, section

ARCHITECTURE = DOCS / "architecture.md"
NAMES = re.compile(r"[a-z_]+")


def test_the_layers_inside_the_registry_are_those_of_the_contract() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (
        contract["layers"]
        for contract in linter["contracts"]
        if contract["name"] == "Layers inside the registry"
    )
    table = rows(section(ARCHITECTURE, "Layers inside the registry"))
    assert [sorted(NAMES.findall(rooms)) for rooms, _ in table] == [
        sorted(NAMES.findall(layer)) for layer in layers
    ]


def test_every_table_is_in_the_data_model() -> None:
    ((_, picture),) = FENCE.findall(section(ARCHITECTURE, "The data model"))
    boxes = re.findall(r'^ +\w\["(.+)"\]$', picture, re.MULTILINE)
    named = [line.partition(":")[0] for box in boxes for line in box.split("<br>")]
    assert sorted(named) == sorted(SQLModel.metadata.tables)
