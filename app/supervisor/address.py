"""The web server's address, bound before anything starts so that no other program can take it."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address

from app.registry.config import Settings
from worker.core.wording import plural

MIN_PASSWORD = 8  # characters; ASVS 5.0, 6.2.1
PORTS_TO_TRY = 50
BACKLOG = 2048


class AddressError(Exception):
    """The web server cannot use this address; the message says what to do."""


def check_exposure(settings: Settings) -> None:
    """Raise AddressError if other machines could reach a server without a sufficient password.

    With accounts everybody has one of their own, and a second way in is refused.

    They can when it listens on their network, or when it answers to host names of its own, which a
    reverse proxy passes on. On this machine alone a shorter password is accepted.
    """
    if settings.login_conflict:
        raise AddressError(settings.login_conflict)
    if not settings.is_loopback and not settings.password and not settings.accounts:
        raise AddressError(
            f"Brushwork does not listen on {settings.host} without a password, because everyone on "
            "the network could use it. Set BRUSHWORK_PASSWORD or BRUSHWORK_ACCOUNTS, or use --host "
            "127.0.0.1."
        )
    is_alone = settings.is_loopback and not settings.is_behind_names
    length = len(settings.password.get_secret_value()) if settings.password else MIN_PASSWORD
    if length < MIN_PASSWORD and not is_alone:
        raise AddressError(
            f"BRUSHWORK_PASSWORD has {plural(length, 'character')}, and other machines can reach "
            f"this server. Set one of {MIN_PASSWORD} or more: a long password is better than a "
            "complicated one."
        )


def exposure_hints(settings: Settings) -> list[str]:
    """Sentences for the start: what is off or weak because of who can use the server."""
    hints = []
    if settings.accounts:
        hints.append(
            "People log in with names of their own. `brushwork users invite NAME --role admin` "
            "prints the link for the first administrator."
        )
    length = len(settings.password.get_secret_value()) if settings.password else MIN_PASSWORD
    if length < MIN_PASSWORD:
        hints.append(
            f"BRUSHWORK_PASSWORD is shorter than {MIN_PASSWORD} characters, which is accepted only "
            "because no other machine can reach this server."
        )
    if settings.is_private:
        return hints
    closed = [
        sentence
        for is_closed, sentence in (
            (not settings.model_folders, "base models from folders (BRUSHWORK_MODEL_FOLDERS)"),
            (settings.hub == "auto", "the Hugging Face Hub (BRUSHWORK_HUB=on)"),
        )
        if is_closed
    ]
    if closed:
        hints.append(f"Off, because others can use this server: {' and '.join(closed)}.")
    return hints


def listen(host: str, port: int, *, explicit: bool) -> socket.socket:
    """A listening socket on `host`.

    If the default port is in use, the next free one is taken. If `explicit` (the user chose the
    port), AddressError is raised instead. Port 0 means any free port.
    """
    tries = 1 if explicit or port == 0 else PORTS_TO_TRY
    for candidate in range(port, min(port + tries, 65536)):
        try:
            return _bind_socket(host, candidate)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and candidate + 1 < port + tries:
                continue
            raise AddressError(_reason_text(host, candidate, error)) from error
    raise AddressError(f"No free port from {port} upward on {host}. Choose one with --port.")


def _bind_socket(host: str, port: int) -> socket.socket:
    host = host.strip("[]")
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, the end of each
    # answer waits for a delayed acknowledgment: 40 ms
    server = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(BACKLOG)
    except OSError:
        server.close()
        raise
    return server


def _reason_text(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                f"Port {port} on {host} is used by another program. "
                "Choose another with --port, or use --port 0 for any free port."
            )
        case errno.EACCES:
            return f"Port {port} needs administrator rights. Choose one above 1023 with --port."
        case _:
            return f"Brushwork cannot listen on {host} port {port}: {error.strerror or error}."


def reachable_host(host: str) -> str:
    """The host for a URL: this machine for "all addresses", IPv6 in brackets."""
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{address}]" if address.version == 6 else str(address)


def url_of(host: str, server: socket.socket) -> str:
    """The URL of the listening socket."""
    return f"http://{reachable_host(host)}:{server.getsockname()[1]}"
