"""`brushwork web`: the web server alone, for machines where workers run elsewhere."""

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
    """Serve pages and API until SIGTERM; 2 when the address cannot be had."""
    try:
        check_exposure(settings)
        server = inherited(arguments.fd) or listen(settings.host, settings.port, explicit=True)
    except AddressError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.after_fd is not None:
        os.read(arguments.after_fd, 1)  # returns at the end of the pipe: the database is ready
    if not tables_are_current(settings):
        print(
            "The database has not this version's tables. Run `brushwork migrate` first.",
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


def inherited(descriptor: int | None) -> socket.socket | None:
    """The listening socket a supervisor handed over; its family is read from the kernel."""
    return None if descriptor is None else socket.socket(fileno=descriptor)


def tables_are_current(settings: Settings) -> bool:
    """Whether the database was migrated to what this version needs."""
    engine = make_engine(settings.sqlalchemy_url)
    try:
        return is_current(engine)
    finally:
        engine.dispose()
