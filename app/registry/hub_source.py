"""Parse names on the Hugging Face Hub, and check whether Hub access is allowed."""

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
    True: "Hugging Face access is off on this server (BRUSHWORK_HUB=off). An administrator can "
    "enable it with BRUSHWORK_HUB=on.",
    False: "Hugging Face access is off on this server, because others can use it: it has a "
    "password, a host name or an address of its own. An administrator can enable it with "
    "BRUSHWORK_HUB=on.",
}


@dataclass(frozen=True)
class HubSource:
    """A repository, optionally with a revision (branch, tag or commit) and a file."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        """The usual notation: `owner/name@revision/file`."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}{f'/{self.file}' if self.file else ''}"

    @property
    def uri(self) -> str:
        """The stored form, which cannot be confused with a path."""
        return f"{SCHEME}{self}"

    @property
    def folder(self) -> str:
        """Name of the folder with the downloaded files of the repository."""
        return self.repo.replace("/", "--")

    @property
    def name(self) -> str:
        """A short display name."""
        whole = self.file or self.repo
        return whole.rpartition("/")[2].removesuffix(".safetensors")


def read_source(text: str) -> HubSource | None:
    """Parse `owner/name@revision/file`, or a URL copied from the Hub's pages.

    None when it is not a name on the Hub, such as a path.
    """
    text = text.strip()
    for address in ADDRESSES:
        if text.startswith(address):
            return _read_address(text.removeprefix(address))
    found = WRITTEN.fullmatch(text.removeprefix(SCHEME))
    return _make_source(found["repo"], found["revision"], found["file"]) if found else None


def _read_address(rest: str) -> HubSource | None:
    parts = unquote(rest.partition("?")[0].partition("#")[0]).strip("/").split("/")
    found = WRITTEN.fullmatch("/".join(parts[:2]))
    if found is None or found["revision"]:
        return None
    revision = parts[3] if len(parts) > 3 and parts[2] in ("blob", "resolve", "tree") else None
    file = "/".join(parts[4:]) if revision and parts[2] != "tree" else ""
    return _make_source(found["repo"], None if revision == "main" else revision, file or None)


def _make_source(repo: str, revision: str | None, file: str | None) -> HubSource | None:
    twisted = any("--" in part or ".." in part for part in (repo, revision or ""))
    steps = file is not None and any(part in ("", ".", "..") for part in file.split("/"))
    if twisted or steps or len(repo) > MAX_NAME or not (file or "x").isprintable():
        return None
    return HubSource(repo, revision, file)


def is_allowed(settings: Settings) -> bool:
    """True if users may download from the Hub and publish there.

    By default only if nobody else can use the server: then every user is its administrator. On
    other servers, downloads use the administrator's network, disk and token, so the administrator
    has to allow it.
    """
    return settings.hub == "on" or (settings.hub == "auto" and settings.is_private)


def require_allowed(settings: Settings) -> None:
    """Raise Forbidden when Hub access is off, with the setting that enables it."""
    if not is_allowed(settings):
        raise Forbidden(FORBIDDEN[settings.hub == "off"])
