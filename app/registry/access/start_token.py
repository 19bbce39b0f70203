"""The start token: whoever can read the data folder may use the server, other users may not."""

from __future__ import annotations

import os
import secrets
from html import escape
from pathlib import Path

from app.registry.config import Settings

FILE_NAME = "start-token"
PAGE_NAME = "login.html"
TOKEN_BYTES = 32
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>Brushwork</title>
<p><a href="{address}">Open Brushwork</a>
"""


def make_start_token(data_dir: Path) -> str:
    """A new token, written to a file that only this user can read."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    write_private(data_dir / FILE_NAME, token + "\n")
    return token


def read_start_token(settings: Settings) -> str | None:
    """The token of this start; None where none is asked for. A missing one is made."""
    if not settings.start_token:
        return None
    return existing_start_token(settings.data_dir) or make_start_token(settings.data_dir)


def existing_start_token(data_dir: Path) -> str | None:
    """The token in the data folder, if there is one."""
    try:
        return (data_dir / FILE_NAME).read_text().strip() or None
    except FileNotFoundError:
        return None


def login_url(url: str, token: str) -> str:
    """The address that logs a browser in."""
    return f"{url}/login?token={token}"


def write_login_page(data_dir: Path, address: str) -> Path:
    """A file that leads a browser to the login address, for this user only.

    The address itself would be visible to other users in the list of processes.
    """
    page = data_dir / PAGE_NAME
    write_private(page, PAGE.format(address=escape(address)))
    return page


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
