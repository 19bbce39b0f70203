"""Events are written to stderr, whichever it is at the time."""

from __future__ import annotations

import contextlib
import io

import pytest
import structlog

from app.registry.logs import configure_logs


def test_events_go_to_the_stderr_of_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    with io.StringIO() as replaced, contextlib.redirect_stderr(replaced):
        configure_logs("INFO")
        structlog.get_logger().info("first")
        assert "first" in replaced.getvalue()
    structlog.get_logger().warning("second", open=2)
    written = capsys.readouterr().err
    assert "second" in written
    assert "open=2" in written
    assert "first" not in written
