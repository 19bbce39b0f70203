"""Collects requests to a running training."""

from worker.core.training.changes import ChangeOrder
from worker.core.training.events import Callbacks, Control


class StopRequested(Exception):
    """A stop was requested; raised at a poll, caught where the training ends."""

    def __init__(self, control: Control) -> None:
        super().__init__(control.value)
        self.control = control


class PendingRequests:
    """Holds requests between a poll and the place that handles them."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._sample_now = False
        self._save_now = False
        self._change: ChangeOrder | None = None

    def poll(self) -> None:
        """Poll the callbacks; raises StopRequested when the training should end."""
        self._poll(Control.CONTINUE)

    def poll_while_stopping(self) -> None:
        """Poll the callbacks while what is kept is saved; a stop changes nothing any more."""
        self._poll(Control.CONTINUE, Control.STOP_AND_KEEP)

    def _poll(self, *ignored: Control) -> None:
        commands = self._callbacks.poll()
        self._sample_now |= commands.sample_now
        self._save_now |= commands.save_now
        self._change = commands.change or self._change
        if commands.control not in ignored:
            raise StopRequested(commands.control)

    def take_sample_request(self) -> bool:
        """True when samples were requested since the last call."""
        requested, self._sample_now = self._sample_now, False
        return requested

    def take_change(self) -> ChangeOrder | None:
        """The newest order to change settings since the last call."""
        order, self._change = self._change, None
        return order

    def take_save_request(self) -> bool:
        """True when a checkpoint was requested since the last call."""
        requested, self._save_now = self._save_now, False
        return requested
