"""What people call something on the Hugging Face Hub, and whether it may be asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from app.registry.config import Settings
from app.registry.errors import Forbidden

SCHEME = "hf://"
ADDRESSES = ("https://huggingface.co/", "http://huggingface.co/", "https://hf.co/")
PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
WRITTEN = re.compile(
    rf"(?P<repo>{PART}/{PART})(?:@(?P<revision>[A-Za-z0-9._-]+))?(?:/(?P<file>.+))?"
)
MAX_NAME = 96
FORBIDDEN = {
    True: "The Hub may not be asked here: BRUSHWORK_HUB is off.",
    False: "The Hub may not be asked here, because others than this machine reach Brushwork. "
    "Whoever runs it can allow it by BRUSHWORK_HUB=on.",
}


@dataclass(frozen=True)
class HubSource:
    """A repository, maybe at a revision (branch, tag or commit), maybe one file in it."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        """As people write it: `owner/name@revision/file`."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}{f'/{self.file}' if self.file else ''}"

    @property
    def uri(self) -> str:
        """What a row keeps, so that it is never taken for a path."""
        return f"{SCHEME}{self}"

    @property
    def folder(self) -> str:
        """The name of the folder that holds what was downloaded of the repository."""
        return self.repo.replace("/", "--")

    @property
    def name(self) -> str:
        """A short name for what it is."""
        whole = self.file or self.repo
        return whole.rpartition("/")[2].removesuffix(".safetensors")


def read_source(text: str) -> HubSource | None:
    """What a person wrote: `owner/name@revision/file`, or an address copied from the Hub's pages.

    None when it is no name on the Hub, as a path is not.
    """
    text = text.strip()
    for address in ADDRESSES:
        if text.startswith(address):
            return _read_address(text.removeprefix(address))
    found = WRITTEN.fullmatch(text.removeprefix(SCHEME))
    return _checked(found["repo"], found["revision"], found["file"]) if found else None


def _read_address(rest: str) -> HubSource | None:
    parts = unquote(rest.partition("?")[0].partition("#")[0]).strip("/").split("/")
    found = WRITTEN.fullmatch("/".join(parts[:2]))
    if found is None or found["revision"]:
        return None
    revision = parts[3] if len(parts) > 3 and parts[2] in ("blob", "resolve", "tree") else None
    file = "/".join(parts[4:]) if revision and parts[2] != "tree" else ""
    return _checked(found["repo"], None if revision == "main" else revision, file or None)


def _checked(repo: str, revision: str | None, file: str | None) -> HubSource | None:
    twisted = any("--" in part or ".." in part for part in (repo, revision or ""))
    steps = file is not None and any(part in ("", ".", "..") for part in file.split("/"))
    if twisted or steps or len(repo) > MAX_NAME or not (file or "x").isprintable():
        return None
    return HubSource(repo, revision, file)


def is_allowed(settings: Settings) -> bool:
    """Whether people may have things fetched from the Hub, and published there.

    By default when only this machine can ask: then whoever asks is whoever runs it. Where others
    reach the web server, fetching for them uses the machine's line, disk and token, so whoever runs
    it has to say so.
    """
    return settings.hub == "on" or (settings.hub == "auto" and settings.is_loopback)


def require_allowed(settings: Settings) -> None:
    """Refuse when the Hub may not be asked, and say who can change that."""
    if not is_allowed(settings):
        raise Forbidden(FORBIDDEN[settings.hub == "off"])
