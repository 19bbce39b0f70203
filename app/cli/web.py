"""`brushwork web`: runs only the web server, for setups with workers elsewhere."""

from __future__ import annotations

import os
import socket
import sys
from argparse import Namespace

from app.cli.database import require_database
from app.registry.access.start_token import login_url, make_start_token, read_start_token
from app.registry.config import Settings
from app.supervisor.address import AddressError, check_exposure, exposure_hints, listen, url_of
from app.web.main import create_app
from app.web.server import make_server


def run(arguments: Namespace, settings: Settings) -> int:
    """Serve pages and API until SIGTERM; return 2 if the address cannot be used.

    Raises UnusableDatabase.
    """
    try:
        check_exposure(settings)
        if arguments.fd is None:
            server = listen(settings.host, settings.port, explicit=True)
        else:  # its family is read from the kernel
            server = socket.socket(fileno=arguments.fd)
    except AddressError as error:
        print(error, file=sys.stderr)
        return 2
    with server:
        was_migrated = arguments.after_fd is not None
        if was_migrated:
            os.read(arguments.after_fd, 1)  # returns at the end of the pipe: the database is ready
        require_database(settings, was_migrated=was_migrated)
        token = start_token_of(arguments, settings)
        web = make_server(create_app(settings), log_level=settings.log_level.lower())
        _say_address(url_of(settings.host, server), settings, token=None if arguments.fd else token)
        web.run(sockets=[server])
    return 0


def _say_address(url: str, settings: Settings, *, token: str | None) -> None:
    """Print where to go; below a supervisor, that one prints the login address."""
    print(f"Listening at {url}", flush=True)
    if token:
        print(f"Log in at {login_url(url, token)}", flush=True)
    for hint in exposure_hints(settings):
        print(hint, flush=True)


def start_token_of(arguments: Namespace, settings: Settings) -> str | None:
    """The start token, a new one unless `serve` made it; None where none is asked for."""
    if settings.start_token and arguments.fd is None:
        make_start_token(settings.data_dir)
    return read_start_token(settings)
