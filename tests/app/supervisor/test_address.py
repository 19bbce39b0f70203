"""The address: bound first, moved only when nobody asked for this very port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from app.registry.config import Settings
from app.supervisor.address import (
    AddressError,
    check_exposure,
    listen,
    reachable_host,
    url_of,
)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine on which somebody listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_port_zero_takes_a_free_one() -> None:
    with listen("127.0.0.1", 0, explicit=True) as server:
        assert server.getsockname()[1] > 0
        with socket.create_connection(server.getsockname()):
            pass  # bound and listening: the port cannot be taken before the web server is up


def test_the_end_of_an_answer_does_not_wait_for_an_acknowledgment() -> None:
    async def no_delay_of_a_connection() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = writer.get_extra_info("socket")
            accepted.set_result(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen("127.0.0.1", 0, explicit=True)
        async with await asyncio.start_server(note, sock=listener):
            with socket.create_connection(listener.getsockname()):
                return await accepted

    assert asyncio.run(no_delay_of_a_connection())


def test_a_default_port_that_is_taken_gives_a_later_one(taken: int) -> None:
    with listen("127.0.0.1", taken, explicit=False) as server:
        assert taken < server.getsockname()[1] <= taken + 50


def test_a_port_somebody_asked_for_is_never_changed(taken: int) -> None:
    with pytest.raises(AddressError, match=f"Port {taken} on 127.0.0.1 is used by another program"):
        listen("127.0.0.1", taken, explicit=True)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(AddressError, match=r"cannot listen on 192\.0\.2\.1"):
        listen("192.0.2.1", 0, explicit=True)


def test_a_name_that_does_not_exist_is_named() -> None:
    with pytest.raises(AddressError, match=r"cannot listen on no-such-host\.invalid"):
        listen("no-such-host.invalid", 0, explicit=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "brushwork.example"])
def test_listening_beyond_this_machine_needs_a_password(host: str) -> None:
    with pytest.raises(AddressError, match="Set BRUSHWORK_PASSWORD"):
        check_exposure(Settings(host=host, password=None))
    check_exposure(Settings(host=host, password=SecretStr("correct horse")))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_alone_needs_none(host: str) -> None:
    check_exposure(Settings(host=host, password=None))


@pytest.mark.parametrize(
    ("host", "written"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("localhost", "localhost")],
)
def test_the_url_is_one_a_browser_can_open(host: str, written: str) -> None:
    assert reachable_host(host) == written


def test_the_url_names_the_real_port() -> None:
    with listen("127.0.0.1", 0, explicit=True) as server:
        assert url_of("127.0.0.1", server) == f"http://127.0.0.1:{server.getsockname()[1]}"
