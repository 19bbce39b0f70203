"""Serving after the check of the system: the lock on the data folder, the address, the stack."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from app.registry.access.start_token import (
    existing_start_token,
    login_url,
    make_start_token,
    read_start_token,
    write_login_page,
)
from app.registry.config import Settings
from app.supervisor.address import AddressError, check_exposure, exposure_hints, listen, url_of
from app.supervisor.broker import BrokerError
from app.supervisor.lock import DataFolderLock, LockOwner
from app.supervisor.stack import (
    DataFolderError,
    prepare_data_folder,
    remove_socket_folder,
    run_stack,
)
from app.supervisor.supervisor import StartError

LOCK_SETTLE_SECONDS = 2.0  # between taking the lock and writing the address into it

say: Callable[[str], None] = partial(print, flush=True)


def serve(settings: Settings) -> int:
    """Serve until stopped; return 0 also if Brushwork already runs on this data folder."""
    try:
        check_exposure(settings)
        prepare_data_folder(settings.data_dir)
        with DataFolderLock(settings.data_dir) as lock:
            if not lock.acquire():
                say(already_running(settings.data_dir, lock.owner))
                _say_login_address(settings, lock.owner())
                return 0
            remove_socket_folder(lock.owner())
            return _serve(settings, lock)
    except (AddressError, BrokerError, DataFolderError, StartError) as error:
        print(error, file=sys.stderr, flush=True)
        return 2


def _serve(settings: Settings, lock: DataFolderLock) -> int:
    explicit = "port" in settings.model_fields_set
    with listen(settings.host, settings.port, explicit=explicit) as server:
        url = url_of(settings.host, server)
        if settings.port and server.getsockname()[1] != settings.port:
            say(f"Port {settings.port} is in use, so Brushwork uses {server.getsockname()[1]}.")
        if settings.start_token:
            make_start_token(settings.data_dir)
        lock.write(LockOwner(os.getpid(), url))
        on_ready = partial(announce, url, settings=settings)
        code = run_stack(settings, server, lock, url=url, say=say, on_ready=on_ready)
    lock.clear()
    return code


def already_running(data_dir: Path, owner: Callable[[], LockOwner | None]) -> str:
    """A message that says where the Brushwork that holds the data folder runs."""
    deadline = time.monotonic() + LOCK_SETTLE_SECONDS
    while (found := owner()) is None or not found.url:
        if time.monotonic() > deadline:
            return f"Brushwork already runs on the data folder {data_dir}."
        time.sleep(0.05)
    return (
        f"Brushwork already runs at {found.url} (process {found.pid}, data folder {data_dir}). "
        "To run a second one, use another --data-dir."
    )


def _say_login_address(settings: Settings, owner: LockOwner | None) -> None:
    """Print the login address of the Brushwork that runs, if it asks for a start token."""
    token = existing_start_token(settings.data_dir) if settings.start_token else None
    if token and owner and owner.url:
        say(f"Log in at {login_url(owner.url, token)}")


def announce(url: str, *, settings: Settings) -> None:
    """Print the URL, with a start token the login address too; open it if there is a desktop."""
    frame = "─" * (len(url) + 27)
    say(f"\n{frame}\nBrushwork is ready at {url}\n{frame}")
    opened = url
    if token := read_start_token(settings):
        say(f"Log in at {login_url(url, token)}")
        opened = write_login_page(settings.data_dir.absolute(), login_url(url, token)).as_uri()
    for hint in exposure_hints(settings):
        say(hint)
    say(f"Data: {settings.data_dir}   Stop: Ctrl-C\n")
    if settings.open_browser and has_desktop(os.environ, is_terminal=sys.stdout.isatty()):
        webbrowser.open(opened)


def has_desktop(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """True on a terminal with a display, not over SSH and not in CI."""
    remote = any(name in environment for name in ("SSH_CONNECTION", "SSH_TTY", "CI"))
    display = sys.platform == "darwin" or any(
        name in environment for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")
    )
    return is_terminal and display and not remote
