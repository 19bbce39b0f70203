"""The two pipes between a trainer process and its worker."""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue

from worker.core.training.events import Commands, Control
from worker.runtime.messages import Message, Train, TrainerCommand, decode, encode

READ_BYTES = 65_536
ORPHANED = 75


class MessageOutbox:
    """Messages to the worker, through the original stdout."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)  # output of libraries must not mix with the messages
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Write one complete line."""
        line = memoryview(encode(message))
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


class MessageInbox:
    """Messages from the worker: orders are queued, commands take effect immediately."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[Message] = SimpleQueue()
        self._has_runs = False
        self._lock = threading.Lock()
        self._control = Control.CONTINUE
        self._sample_now = False
        self._save_now = False
        threading.Thread(target=self._read_messages, name="inbox", daemon=True).start()

    def next(self) -> Message:
        """Wait for the next order."""
        return self._orders.get()

    @property
    def has_orders(self) -> bool:
        """True if an order is waiting."""
        return not self._orders.empty()

    @property
    def has_runs(self) -> bool:
        """True once a training was ordered: what is not for it can be left out."""
        return self._has_runs

    def commands(self) -> Commands:
        """Commands since the last call; a stop or cancel persists."""
        with self._lock:
            commands = Commands(self._control, self._sample_now, self._save_now)
            self._sample_now = self._save_now = False
        return commands

    def _read_messages(self) -> None:
        rest = b""
        # os.read, not sys.stdin: a buffered reader can abort the interpreter at exit
        while data := os.read(0, READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._dispatch(decode(line))
        os._exit(ORPHANED)

    def _dispatch(self, message: Message) -> None:
        if not isinstance(message, TrainerCommand):
            self._has_runs |= isinstance(message, Train)
            self._orders.put(message)
            return
        with self._lock:
            if message.control is not Control.CONTINUE:
                self._control = message.control
            self._sample_now |= message.sample_now
            self._save_now |= message.save_now
