"""Messages in the folder broker that are no wake-ups; `test_stack.py` has those in Redis."""

from __future__ import annotations

from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection

from app.registry.wakeups import celery_settings
from worker.runtime.broker import FolderTransport


def test_a_file_that_is_no_message_is_dropped_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = celery_settings(f"filesystem://{tmp_path}")["broker_transport_options"]
    garbage = (b"no JSON", b"\xff\xfe", b"12", b"[]", b"{}", b'{"properties": {}}')
    with Connection(transport=FolderTransport, transport_options=options) as connection:
        channel = connection.default_channel
        for number, content in enumerate(garbage):
            (tmp_path / "messages" / f"{number}_1.io.msg").write_bytes(content)
        for _ in garbage:
            with pytest.raises(Empty):
                channel._get("io")
    assert list((tmp_path / "messages").iterdir()) == []
    assert len(caplog.messages) == len(garbage)
    assert all("\n" not in line and len(line) < 200 for line in caplog.messages)
