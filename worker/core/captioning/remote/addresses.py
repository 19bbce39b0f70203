"""Addresses of servers: which are allowed, and where their answers are asked for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

PORTS = {"http": 80, "https": 443}


class BadAddress(ValueError):
    """The address cannot be used; the message says why."""


def split_address(address: str) -> SplitResult:
    """The parts of an http or https address. Raises BadAddress."""
    try:
        parts = urlsplit(address.strip())
        port = parts.port
    except ValueError:
        raise BadAddress(f"“{address[:200]}” is not an address. {EXAMPLE}") from None
    if parts.scheme not in PORTS or not parts.hostname or port == 0:
        raise BadAddress(f"“{address[:200]}” is not an address. {EXAMPLE}")
    if parts.username or parts.password:
        raise BadAddress("The address contains a password. Set the key instead.")
    if parts.query or parts.fragment:
        raise BadAddress("The address ends with a query. Enter it up to the path.")
    return parts


EXAMPLE = "Enter one such as http://127.0.0.1:11434."


def host_and_port(address: str) -> str:
    """“host:port” of an address, in lower case and with the usual port. Raises BadAddress."""
    parts = split_address(address)
    host = str(parts.hostname)
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{parts.port or PORTS[parts.scheme]}"


def is_allowed(address: str, hosts: Iterable[str]) -> bool:
    """True if the host of an address is one of these; one without a port allows all its ports.

    Raises BadAddress.
    """
    wanted = host_and_port(address)
    host = wanted.rpartition(":")[0]
    return any(allowed.lower() in (wanted, host) for allowed in hosts)


def is_this_machine(address: str) -> bool:
    """True if an address is one of this machine, which no proxy of the environment reaches."""
    host = split_address(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def below(address: str, path: str) -> str:
    """The address with this path added, once: "…/v1" and "…/v1/" both give "…/v1/models"."""
    base = address.strip().rstrip("/")
    return base if base.endswith(path) else base + path
