"""The messages that a trainer process gets from its worker."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from worker.core.child_pipes import read_lines
from worker.core.training.changes import ChangeOrder
from worker.core.training.events import Commands, Control
from worker.runtime.messages import Message, Train, TrainerCommand, decode


class MessageInbox:
    """Messages from the worker: orders are queued, commands take effect immediately."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[Message] = SimpleQueue()
        self.has_runs = False
        """True once a training was ordered: what is not for it can be left out."""
        self._lock = threading.Lock()
        self._control = Control.CONTINUE
        self._sample_now = False
        self._save_now = False
        self._change: ChangeOrder | None = None
        read_lines(self._dispatch)

    def next(self) -> Message:
        """Wait for the next order."""
        return self._orders.get()

    @property
    def has_orders(self) -> bool:
        """True if an order is waiting."""
        return not self._orders.empty()

    def commands(self) -> Commands:
        """Commands since the last call; a stop or cancel persists."""
        with self._lock:
            commands = Commands(self._control, self._sample_now, self._save_now, self._change)
            self._sample_now = self._save_now = False
            self._change = None
        return commands

    def _dispatch(self, line: bytes) -> None:
        message = decode(line)
        if not isinstance(message, TrainerCommand):
            self.has_runs |= isinstance(message, Train)
            self._orders.put(message)
            return
        with self._lock:
            if message.control is not Control.CONTINUE:
                self._control = message.control
            self._sample_now |= message.sample_now
            self._save_now |= message.save_now
            self._change = message.change or self._change
