"""What depends on the family of a base model is asked of the family."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
FAMILY = re.compile(r"\bBaseFamily\.[A-Z]")
FAMILIES = "worker/core/families/"
RULE = re.compile(r"worker/core/lora_files/proof/\w+_rule\.py")
LEFT: Counter[str] = Counter()
"""Lines that name a family elsewhere, by file: none, and at most four with a reason."""


def test_no_other_line_names_a_family() -> None:
    """Programs are told apart by their rules, which may name families."""
    found: Counter[str] = Counter()
    for folder in ("app", "worker", "tools"):
        for file in (ROOT / folder).rglob("*.py"):
            path = file.relative_to(ROOT).as_posix()
            if not path.startswith(FAMILIES) and not RULE.fullmatch(path):
                found[path] += sum(map(bool, map(FAMILY.search, file.read_text().splitlines())))
    assert found <= LEFT, found - LEFT
