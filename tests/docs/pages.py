"""Reads the Markdown documents of the project: links, headings, tables and code blocks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r'(?:src|srcset)="([^"]+)"')
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
INLINE_CODE = re.compile(r"`([^`\n]+)`")
LABEL = re.compile(r"(?<![*\w])\*([A-Z][^*\n]*)\*(?!\*)")


def documents() -> list[Path]:
    """Every document of the project, sorted; vendored files have their own."""
    folders = (DOCS, ROOT / ".github", ROOT / "worker")
    return sorted([*ROOT.glob("*.md"), *(path for f in folders for path in f.rglob("*.md"))])


@cache
def text(path: Path) -> str:
    """The text of a document."""
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """The text of a document without its code blocks."""
    return FENCE.sub("", text(path))


def name(path: Path) -> str:
    """The path of a document as shown in a failure."""
    return path.relative_to(ROOT).as_posix()


def links(path: Path) -> list[str]:
    """The targets of links and images that are not web addresses."""
    found = [*LINK.findall(prose(path)), *IMAGE.findall(prose(path))]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes from the headings."""
    return {anchor(heading) for _, heading in HEADING.findall(prose(path))}


def anchor(heading: str) -> str:
    """The anchor of a heading: lower case, without punctuation, hyphens for spaces."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    kept = (
        sign for sign in plain if sign in " -_" or unicodedata.category(sign)[0] in ("L", "N", "M")
    )
    return "".join(kept).replace(" ", "-")


def section(path: Path, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level, start = next(
        (len(found[1]), found.end())
        for found in HEADING.finditer(text(path))
        if found[2] == heading
    )
    ends = (
        found.start() for found in HEADING.finditer(text(path), start) if len(found[1]) <= level
    )
    return text(path)[start : next(ends, None)]


def rows(table: str) -> list[tuple[str, ...]]:
    """The cells of every row of the tables in a text, without headers and rules."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rules = [at for at, line in enumerate(lines) if set(line) <= set("|-: ")]
    heads = {at - 1 for at in rules}
    return [
        tuple(cell.strip() for cell in line.strip().strip("|").split(" | "))
        for at, line in enumerate(lines)
        if at not in heads and at not in rules
    ]


def shell_commands() -> Iterator[tuple[str, str]]:
    """(document, command) for every command line in the code blocks, continuations joined."""
    for path in documents():
        for language, block in FENCE.findall(text(path)):
            if language in ("", "sh", "bash", "console"):
                joined = block.replace("\\\n", " ")
                yield from ((name(path), line.strip()) for line in joined.splitlines())
