"""The pipes between a child process and its parent: a line of JSON for each message."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

if TYPE_CHECKING:
    from pydantic import TypeAdapter

READ_BYTES = 65_536
ORPHANED = 75  # exit status
MessageT = TypeVar("MessageT")


class MessageLines(Generic[MessageT]):
    """The lines of messages: dataclasses and enums, told apart by the names of their classes."""

    def __init__(self, messages: Any) -> None:
        """`messages`: the union of all of them."""
        self._kinds = {kind.__name__: kind for kind in get_args(messages)}
        self._adapter = cache(self._make_adapter)

    def encode(self, message: MessageT) -> bytes:
        """The line of a message; NaN and infinity are preserved."""
        name = type(message).__name__
        content = self._adapter(name).dump_python(message, mode="json")
        return json.dumps([name, content]).encode() + b"\n"

    def decode(self, line: bytes) -> MessageT:
        """The message of a line."""
        name, content = json.loads(line)
        message: MessageT = self._adapter(name).validate_python(content)
        return message

    def _make_adapter(self, name: str) -> TypeAdapter[Any]:
        """Made when it is first needed: those of large configs take a while."""
        from pydantic import TypeAdapter  # not by a process that only reads lines

        return TypeAdapter(self._kinds[name])


class Outbox(Generic[MessageT]):
    """Messages to the parent, through the original stdout; what libraries print goes to stderr."""

    def __init__(self, encode: Callable[[MessageT], bytes]) -> None:
        self._encode = encode
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, message: MessageT) -> None:
        """Write one complete line."""
        line = memoryview(self._encode(message))
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


def read_lines(on_line: Callable[[bytes], None]) -> None:
    """Call `on_line` with each line from the parent, in a thread; end the process without parent.

    Whatever its main thread does: it may hang, or wait for a folder for ever.
    """
    threading.Thread(target=_read_lines, args=(on_line,), name="inbox", daemon=True).start()


def _read_lines(on_line: Callable[[bytes], None]) -> None:
    rest = b""
    # os.read, not sys.stdin: a buffered reader can abort the interpreter at exit
    while data := os.read(0, READ_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            on_line(line)
    os._exit(ORPHANED)
