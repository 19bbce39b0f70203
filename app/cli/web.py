"""`brushwork web`: runs only the web server, for setups with workers elsewhere."""

from __future__ import annotations

import os
import socket
import sys
from argparse import Namespace

import uvicorn

from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.migrate import is_current
from app.supervisor.address import AddressError, check_exposure, listen, url_of
from app.web.main import create_app

SHUTDOWN_SECONDS = 5


def run(arguments: Namespace, settings: Settings) -> int:
    """Serve pages and API until SIGTERM; return 2 if the address or database cannot be used."""
    try:
        check_exposure(settings)
        server = inherited_socket(arguments.fd) or listen(
            settings.host, settings.port, explicit=True
        )
    except AddressError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.after_fd is not None:
        os.read(arguments.after_fd, 1)  # returns at the end of the pipe: the database is ready
    if not tables_are_current(settings):
        print(
            "The database belongs to another version. Run `brushwork migrate` first.",
            file=sys.stderr,
        )
        return 2
    config = uvicorn.Config(
        create_app(settings),
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    print(f"Listening at {url_of(settings.host, server)}", flush=True)
    uvicorn.Server(config).run(sockets=[server])
    return 0


def inherited_socket(descriptor: int | None) -> socket.socket | None:
    """The listening socket passed by a supervisor; its family is read from the kernel."""
    return None if descriptor is None else socket.socket(fileno=descriptor)


def tables_are_current(settings: Settings) -> bool:
    """True if the database has the tables of this version."""
    engine = make_engine(settings.sqlalchemy_url)
    try:
        return is_current(engine)
    finally:
        engine.dispose()
