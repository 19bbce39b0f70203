"""The examples in the documentation: blocks of shell, and the answers written below them.

A block marked `bash`, `sh` or `console` is run if its page calls `curl`; in a `console`, lines that
begin with `$ ` are the commands. A `json` or `http` block that follows it at once is the answer:
shortened, so that what it shows must be in the real answer with the same types, and the same
`status`. Without a `status` that is a number, requests succeed.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
SHELLS = ("bash", "sh", "console")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SENT = re.compile(r"^sent (\w+) (http://\S+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A block of shell commands with the answer that the page shows for it."""

    page: Path
    line: int
    commands: str
    answer: str | None  # JSON, or the header lines of an answer
    is_json: bool

    @property
    def place(self) -> str:
        """Page and line, for a message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def expected_status(self) -> int | None:
        """The status of the documented answer; None: success."""
        answer = json.loads(self.answer) if self.answer and self.is_json else None
        status = answer.get("status") if isinstance(answer, dict) else None
        return status if isinstance(status, int) else None


@dataclass(frozen=True)
class Sent:
    """A request that an example sent, with the status of its answer."""

    method: str
    url: str
    status: int


@dataclass(frozen=True)
class Outcome:
    """The output of an example, and the requests it sent."""

    example: Example
    output: str
    errors: str

    @property
    def sent(self) -> list[Sent]:
        """Its requests in order."""
        return [Sent(method, url, int(status)) for method, url, status in SENT.findall(self.errors)]


def examples(page: Path) -> list[Example]:
    """The examples of a page in order; none if it calls the API nowhere."""
    found = list(_blocks(page))
    return found if any("curl" in example.commands for example in found) else []


def _blocks(page: Path) -> Iterator[Example]:
    text = page.read_text()
    fences = list(FENCE.finditer(text))
    for place, fence in enumerate(fences):
        if fence[1] not in SHELLS:
            continue
        after = fences[place + 1] if place + 1 < len(fences) else None
        follows = after is not None and not text[fence.end() : after.start()].strip()
        is_answer = follows and after is not None and after[1] in ("json", "http")
        yield Example(
            page=page,
            line=text.count("\n", 0, fence.start()) + 1,
            commands=_commands(fence[1], fence[2]),
            answer=after[2] if is_answer and after else None,
            is_json=bool(is_answer and after and after[1] == "json"),
        )


def _commands(shell: str, block: str) -> str:
    if shell != "console":
        return block
    return "".join(f"{line[2:]}\n" for line in block.splitlines() if line.startswith("$ "))


def run_page(
    shown: list[Example], folder: Path, server: str, environment: Mapping[str, str]
) -> list[Outcome]:
    """Run the examples of a page in one shell, as they are written, from this folder.

    curl's own settings send what is for localhost:8188 to `server` ("host:port").
    """
    (folder / ".curlrc").write_text(
        f'connect-to = "localhost:8188:{server}"\nsilent\nshow-error\nmax-time = 600\n'
        'write-out = "%{stderr}sent %{method} %{url_effective} %{http_code}\\n"\n'
    )
    lines = ["set -eu"]
    for number, example in enumerate(shown):
        lines += [f"exec >{folder}/{number}.out 2>{folder}/{number}.err", example.commands]
    subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env={**environment, "CURL_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=1_700,
    )
    return [
        Outcome(
            example,
            (folder / f"{number}.out").read_text(errors="replace"),
            (folder / f"{number}.err").read_text(errors="replace"),
        )
        for number, example in enumerate(shown)
        if (folder / f"{number}.out").exists()
    ]


def differences(documented: Any, real: Any, place: str = "answer") -> Iterator[str]:
    """The parts of the documented answer that the real one lacks."""
    if isinstance(documented, dict) and isinstance(real, dict):
        for name, value in documented.items():
            if name not in real:
                yield f"{place} has no {name}"
            elif name == "status" and value != real[name]:
                yield f"{place}.status is {real[name]}, not {value}"
            else:
                yield from differences(value, real[name], f"{place}.{name}")
    elif isinstance(documented, list) and isinstance(real, list):
        if documented and not real:
            yield f"{place} is empty"
        for number, (one, other) in enumerate(zip(documented, real, strict=False)):
            yield from differences(one, other, f"{place}[{number}]")
    elif _kind(documented) != _kind(real):
        yield f"{place} is {real!r}, not like {documented!r}"


def _kind(value: Any) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)
