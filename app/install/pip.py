"""Runs the pip of an environment."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.install import InstallError

SOURCES = ("index-url", "extra-index-url", "find-links", "no-index")
SHORT_SOURCES = ("-i", "-f")
LOOK_SECONDS = 20.0


@dataclass(frozen=True)
class FoundWheel:
    """The wheel that pip would install: its version, and its size if it is on a disk."""

    version: str
    size: int | None

    @property
    def is_cpu(self) -> bool:
        """True for a build without CUDA, which torch marks in its version."""
        return self.version.endswith("+cpu")


class Pip:
    """The pip of an environment, with options for every installation."""

    def __init__(self, python: Path, options: Sequence[str], *, is_terminal: bool) -> None:
        self._command = [str(python), "-m", "pip"]
        self._options = list(options)
        # pip draws its progress on a terminal; a log gets the lines of the caller alone
        self._output = [] if is_terminal else ["--quiet", "--progress-bar", "off"]
        self._environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    @cached_property
    def config(self) -> Mapping[str, str]:
        """Options of the user: pip's files, its variables, and the options of this command."""
        found: dict[str, str] = {}
        for line in self._ask("config", "list").splitlines():
            name, _, value = line.partition("=")
            found[name.rpartition(".")[2]] = str(ast.literal_eval(value))
        return found | _long_options(self._options)

    @property
    def names_a_source(self) -> bool:
        """True if the options of this command say where packages come from."""
        names = [option.partition("=")[0] for option in self._options]
        return any(name in (*(f"--{one}" for one in SOURCES), *SHORT_SOURCES) for name in names)

    def find(self, requirement: str) -> FoundWheel | None:
        """The wheel that pip would install from the sources that the user configured.

        None if there are none but PyPI, or if pip does not say within `LOOK_SECONDS`.
        """
        sources = {name for name in SOURCES if name in self.config}
        if self.names_a_source or sources & {"find-links", "no-index"}:
            return self._try(requirement)
        return self._newest(requirement) if sources else None

    def _try(self, requirement: str) -> FoundWheel | None:
        """The wheel that a dry run finds; it may read the whole file, which is quick on a disk."""
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-"]
        try:
            answer = self._ask("install", *options, *self._options, requirement)
            (wheel,) = json.loads(answer)["install"]
        except (subprocess.TimeoutExpired, ValueError):
            return None
        url = urlsplit(wheel["download_info"]["url"])
        path = Path(unquote(url.path)) if url.scheme == "file" else None
        size = path.stat().st_size if path is not None and path.is_file() else None
        return FoundWheel(wheel["metadata"]["version"], size)

    def _newest(self, requirement: str) -> FoundWheel | None:
        """The newest version in the indexes; no file is downloaded."""
        name = re.split(r"[<>=!~ ]", requirement)[0]
        try:
            found = re.match(rf"{name} \((.+)\)", self._ask("index", "versions", name))
        except subprocess.TimeoutExpired:
            return None
        return FoundWheel(found[1], None) if found else None

    def _ask(self, *arguments: str) -> str:
        return subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS,
            env=self._environment,
        ).stdout

    def install(self, *arguments: str) -> None:
        """Install these packages; raises InstallError, after pip's own message."""
        command = [*self._command, "install", *self._output, *arguments, *self._options]
        process = subprocess.Popen(command, env=self._environment)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it got the signal too, and removes what it did not finish
            raise
        if code:
            raise InstallError("pip could not install the packages; its message is above.")


def _long_options(options: Sequence[str]) -> dict[str, str]:
    """The values of `--name value` and `--name=value`."""
    found = {}
    for option, following in zip_longest(options, options[1:], fillvalue=""):
        name, equals, value = option.partition("=")
        if name.startswith("--"):
            found[name[2:]] = value if equals else following
    return found
