"""The proxy that stages faults: each state is what a client of it sees."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy

SHORT_SECONDS = 0.3


class Echo(socketserver.BaseRequestHandler):
    """Answers with what it was sent."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while content := self.request.recv(1024):
                self.request.sendall(content)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with contextlib.closing(Proxy(server.server_address[1])) as proxy:
            yield proxy
        server.shutdown()


@contextlib.contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        yield connection


def answer(connection: socket.socket, words: bytes) -> bytes:
    connection.sendall(words)
    return connection.recv(1024)


def read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


def test_it_forwards(proxy: Proxy) -> None:
    with client(proxy) as one, client(proxy) as other:
        assert answer(one, b"hello") == b"hello"
        assert answer(other, b"there") == b"there"


def test_a_server_that_is_gone_resets_and_refuses_until_it_is_back(proxy: Proxy) -> None:
    with client(proxy) as connection:
        answer(connection, b"hello")
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))
    proxy.forward()
    with client(proxy) as connection:
        assert answer(connection, b"again") == b"again"


def test_a_network_that_hangs_answers_late_and_loses_nothing(proxy: Proxy) -> None:
    with client(proxy) as before:
        answer(before, b"hello")
        proxy.hang()
        with client(proxy) as during:
            for connection in (before, during):
                connection.sendall(b"late")
                connection.settimeout(SHORT_SECONDS)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            proxy.forward()
            for connection in (before, during):
                connection.settimeout(5)
                assert connection.recv(1024) == b"late"


def test_a_forgotten_connection_is_silent_and_new_ones_are_not(proxy: Proxy) -> None:
    with client(proxy) as half_open:
        answer(half_open, b"hello")
        proxy.forget()
        half_open.sendall(b"anybody")
        half_open.settimeout(SHORT_SECONDS)
        with pytest.raises(TimeoutError):
            half_open.recv(1)
        with client(proxy) as connection:
            assert answer(connection, b"hello") == b"hello"


def test_an_answer_is_cut_in_the_middle(proxy: Proxy) -> None:
    proxy.cut_after(8)
    with client(proxy) as connection:
        assert answer(connection, b"four") == b"four"
        connection.sendall(b"and some more")
        with pytest.raises(ConnectionResetError):
            read_to_the_end(connection)
