"""Collects requests to a running training."""

from dataclasses import replace

from worker.core.training.changes import ChangeOrder
from worker.core.training.events import Callbacks, Commands, Control


class StopRequested(Exception):
    """A stop was requested; raised at a poll, caught where the training ends."""

    def __init__(self, control: Control) -> None:
        super().__init__(control.value)
        self.control = control


class PendingRequests:
    """Holds requests between a poll and the place that handles them."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._pending = Commands()

    def poll(self) -> None:
        """Poll the callbacks; raises StopRequested when the training should end."""
        self._poll(Control.CONTINUE)

    def poll_while_stopping(self) -> None:
        """Poll the callbacks while what is kept is saved; a stop changes nothing any more."""
        self._poll(Control.CONTINUE, Control.STOP_AND_KEEP)

    def _poll(self, *ignored: Control) -> None:
        commands = self._callbacks.poll()
        self._pending = self._pending.joined(commands)
        if commands.control not in ignored:
            raise StopRequested(commands.control)

    def take_change(self) -> ChangeOrder | None:
        """The newest order to change settings since the last call."""
        order = self._pending.change
        self._pending = replace(self._pending, change=None)
        return order

    def take(self) -> Commands:
        """All requests since the last call; an order to change settings is left."""
        taken, self._pending = self._pending, Commands(change=self._pending.change)
        return taken
