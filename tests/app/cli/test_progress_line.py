"""The progress of commands: one line of a terminal, some lines of a log, nothing for short work."""

from __future__ import annotations

import pytest

from app.cli import progress_line


@pytest.mark.parametrize(
    ("is_terminal", "in_logs", "told"),
    [
        (False, True, "Layer 3 of 22\nLayer 4 of 22\n"),
        (False, False, ""),
        (True, False, "\rLayer 3 of 22\x1b[K\rLayer 4 of 22\x1b[K\r\x1b[K"),
    ],
)
def test_progress_is_told_where_somebody_sees_it(
    is_terminal: bool,
    in_logs: bool,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress_line, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(progress_line, "TERMINAL_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    with progress_line.progress_line(in_logs=in_logs) as show:
        show("Layer 3 of 22")
        show("Layer 4 of 22")
    assert capsys.readouterr().err == told


def test_short_work_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress_line.layer_progress() as show:
        show(2, 22)
    assert capsys.readouterr().err == ""


def test_the_first_layer_is_layer_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_line, "LOG_SECONDS", 0.0)
    with progress_line.layer_progress() as show:
        show(0, 22)
    assert capsys.readouterr().err == "Layer 1 of 22\n"
