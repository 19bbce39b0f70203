"""Writing on a full disk."""

from __future__ import annotations

import errno

import pytest

from worker.core.training import failures
from worker.core.training.commands import StopRequested
from worker.core.training.events import Control, Event, Phase, PhaseStarted
from worker.core.training.failures import RoomToWrite


class Disk:
    """A disk that is full for some writes."""

    def __init__(self, full_for: int, error: int = errno.ENOSPC) -> None:
        self._left = full_for
        self._error = error

    def write(self) -> str:
        if self._left:
            self._left -= 1
            raise OSError(self._error, "no")
        return "written"


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "TRY_SECONDS", 0.01)
    monkeypatch.setattr(failures, "POLL_SECONDS", 0.001)


def test_a_write_waits_until_there_is_room_and_says_so_once() -> None:
    events: list[Event] = []
    writer = RoomToWrite(events.append, lambda: None, waits=True)
    assert writer.write(Disk(3).write, phase=Phase.SAMPLING) == "written"
    assert events == [PhaseStarted(Phase.WAITING), PhaseStarted(Phase.SAMPLING)]
    assert writer.write(Disk(0).write, phase=Phase.TRAINING) == "written"
    assert len(events) == 2


@pytest.mark.parametrize(("waits", "error"), [(False, errno.ENOSPC), (True, errno.EACCES)])
def test_other_errors_are_raised_and_so_is_a_full_disk_for_who_does_not_wait(
    waits: bool, error: int
) -> None:
    events: list[Event] = []
    writer = RoomToWrite(events.append, lambda: None, waits=waits)
    with pytest.raises(OSError, match="no"):
        writer.write(Disk(1, error).write, phase=Phase.TRAINING)
    assert events == []


def test_a_training_that_is_asked_to_end_waits_no_more() -> None:
    def cancel() -> None:
        raise StopRequested(Control.SAVE_AND_EXIT)

    writer = RoomToWrite(lambda event: None, cancel, waits=True)
    with pytest.raises(StopRequested):
        writer.write(Disk(2).write, phase=Phase.TRAINING)
    with pytest.raises(OSError, match="no"):  # its last checkpoint: it is no more than tried
        writer.write(Disk(1).write, phase=Phase.TRAINING)
