"""A TCP proxy that fails on command: in front of PostgreSQL, Redis or an object store."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

CHUNK = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER without patience: close sends RST
BACKLOG = 128


class Proxy:
    """Forwards connections to a server of this machine; its port stays the same in every state.

    `forward()` ends `refuse`, `hang` and `cut_after`.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._cut_after: int | None = None
        self._lock = threading.Lock()
        self._pairs: set[Pair] = set()
        self._forgotten: set[Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._accept_in_thread()

    def forward(self) -> None:
        """Forward again; bytes held back by `hang` go on, as after a pause of the network."""
        self._cut_after = None
        if not self._listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._listener.listen(BACKLOG)
            self._accept_in_thread()
        self._flowing.set()

    def refuse(self) -> None:
        """The server is gone: open connections are reset, new ones are refused."""
        listener = self._listener
        # a socket that is bound and does not listen refuses, and keeps the port for `forward`
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # ends the waiting `accept`
        listener.close()
        self._listener.bind(("127.0.0.1", self.port))
        self.reset()

    def hang(self) -> None:
        """The network swallows everything: connections stay open, new ones are taken up, no byte
        passes."""
        self._flowing.clear()

    def forget(self) -> None:
        """Leave the open connections half-open: silent for ever; new ones are as before."""
        for pair in self._taken():
            pair.is_silent = True
            self._forgotten.add(pair)  # a socket without a reference would be closed

    def reset(self) -> None:
        """Reset the open connections; new ones are as before."""
        for pair in self._taken():
            pair.reset()

    def cut_after(self, answer_bytes: int) -> None:
        """Reset each connection once the server has answered this many bytes on it."""
        self._cut_after = answer_bytes

    def close(self) -> None:
        """End everything."""
        self.refuse()
        self._listener.close()
        self._flowing.set()
        for pair in self._forgotten:
            pair.reset()

    def _taken(self) -> set[Pair]:
        with self._lock:
            taken, self._pairs = self._pairs, set()
        return taken

    def _accept_in_thread(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        pair = Pair(client, server)
        with self._lock:
            self._pairs.add(pair)
        threading.Thread(target=self._copy, args=(pair, client, server), daemon=True).start()
        self._copy(pair, server, client, is_answer=True)
        with self._lock:
            self._pairs.discard(pair)

    def _copy(
        self, pair: Pair, source: socket.socket, target: socket.socket, *, is_answer: bool = False
    ) -> None:
        passed = 0
        with pair.closing():
            while chunk := source.recv(CHUNK):
                self._flowing.wait()
                limit = self._cut_after
                if is_answer and limit is not None and passed + len(chunk) >= limit:
                    target.sendall(chunk[: max(0, limit - passed)])
                    pair.reset()
                    return
                passed += len(chunk)
                if pair.is_silent:
                    return
                target.sendall(chunk)


class Pair:
    """The two connections of one client."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._sockets = (client, server)
        self.is_silent = False
        self._is_reset = False

    def reset(self) -> None:
        """End both with RST."""
        self._is_reset = True
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                one.shutdown(socket.SHUT_RD)  # ends a waiting `recv`, which would delay the close
            one.close()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """End both when one side has ended, unless they are silent."""
        with contextlib.suppress(OSError):
            yield
        if self.is_silent:
            return
        for one in self._sockets:
            if not self._is_reset:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            one.close()
