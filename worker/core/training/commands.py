"""What a training was asked to do, collected wherever it looks."""

from worker.core.training.events import Callbacks, Control


class Told(Exception):
    """The training was told to end; raised wherever it looked, caught where it ends."""

    def __init__(self, control: Control) -> None:
        super().__init__(control.value)
        self.control = control


class Inbox:
    """Remembers requests between the places where the training looks and those where it acts."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self._sample_now = False
        self._save_now = False

    def look(self) -> None:
        """Poll once; raises Told when the training should end."""
        commands = self._callbacks.poll()
        self._sample_now |= commands.sample_now
        self._save_now |= commands.save_now
        if commands.control is not Control.CONTINUE:
            raise Told(commands.control)

    def take_sample_request(self) -> bool:
        """Whether samples were asked for since this was last asked."""
        asked, self._sample_now = self._sample_now, False
        return asked

    def take_save_request(self) -> bool:
        """Whether a checkpoint was asked for since this was last asked."""
        asked, self._save_now = self._save_now, False
        return asked
