"""The output of a training, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.core.training.command_line import console as module
from worker.core.training.command_line.console import BAR, STOPPED, Console, progress_bar
from worker.core.training.events import (
    BaseFacts,
    CheckpointSaved,
    Control,
    Event,
    FixedLoss,
    Notice,
    Phase,
    PhaseStarted,
    SampleSaved,
    StepDone,
    ValidationDone,
)

EVENTS: list[Event] = [
    PhaseStarted(Phase.ENCODING),
    BaseFacts(1_000, 200_000),
    *(StepDone(step, 12, 0.5, 1e-4, 2.0) for step in range(1, 12)),
    Notice("The disk is nearly full."),
    Notice("The adapter seems dead.", is_warning=True),
    ValidationDone(11, 0.3, 0.25, 0.35),
    FixedLoss(0, 0.3, 0.3, 1.0, is_high=False),
    FixedLoss(11, 0.9, 0.3, 3.04, is_high=True),
    SampleSaved(11, 0, "a fox", 7, Path("fox.png")),
    StepDone(12, 12, 0.25, 1e-4, 2.0),
    CheckpointSaved(12, Path("step-000012"), 2_500_000),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(stream: io.StringIO) -> list[str]:
    console = Console(stream)
    for event in EVENTS:
        console.on_event(event)
    console.end_line()
    return stream.getvalue().split("\n")


def on_screen(line: str) -> str:
    """The rest of a line that was written over."""
    return line.split(module.CLEAR)[-1]


@pytest.fixture
def listening() -> Iterator[Console]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    console = Console(Terminal())
    console.listen()
    yield console
    for number, old in before.items():
        signal.signal(number, old)


def test_elsewhere_every_tenth_step_is_a_line() -> None:
    assert told(io.StringIO()) == [
        "Training 1,000 of 200,000 parameters (0.50%).",
        "step 1/12  loss 0.5000  2.00 steps/s  6 s left",
        "step 10/12  loss 0.5000  2.00 steps/s  1 s left",
        "The disk is nearly full.",
        "Warning: The adapter seems dead.",
        "Validation loss 0.3000 (0.2500 to 0.3500) after step 11",
        "Warning: loss on fixed images 3.0 times the base model's after step 11",
        "Sample fox.png (a fox)",
        "step 12/12  loss 0.2500  2.00 steps/s  0 s left",
        "Checkpoint step-000012 (2.5 MB)",
        "",
    ]


def test_on_a_terminal_the_status_line_updates_and_messages_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_FRAMES", 0.0)
    terminal = Terminal()
    assert [on_screen(line) for line in told(terminal)] == [
        "Training 1,000 of 200,000 parameters (0.50%).",
        "The disk is nearly full.",
        "Warning: The adapter seems dead.",
        "Validation loss 0.3000 (0.2500 to 0.3500) after step 11",
        "Warning: loss on fixed images 3.0 times the base model's after step 11",
        "Sample fox.png (a fox)",
        "step 12/12  loss 0.2500  2.00 steps/s  0 s left",
        "Checkpoint step-000012 (2.5 MB)",
        "",
    ]
    frames = terminal.getvalue().split(module.CLEAR)
    assert f"{progress_bar(6 / 12)} step 6/12  loss 0.5000  2.00 steps/s  3 s left" in frames
    assert max(len(line) for frame in frames for line in frame.split("\n")) < 80


def test_a_narrow_terminal_is_never_overrun() -> None:
    terminal = Terminal()
    console = Console(terminal, columns=20)
    console.on_event(StepDone(1, 12, 0.5, 1e-4, 2.0))
    assert len(re.split(r"\x1b\[K", terminal.getvalue())[-1]) == 19


def test_the_first_signal_saves_and_one_press_come_twice_is_one(listening: Console) -> None:
    assert listening.poll().control is Control.CONTINUE
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert listening.poll().control is Control.SAVE_AND_EXIT


def test_a_second_press_ends_at_once(listening: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAME_PRESS_SECONDS", -1.0)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit) as left:
        signal.raise_signal(signal.SIGINT)
    assert left.value.code == STOPPED


def test_a_bar_is_filled_for_the_part_that_is_done() -> None:
    assert progress_bar(0.5) == "━" * (BAR // 2) + "╌" * (BAR // 2)
