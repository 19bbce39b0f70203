"""Messages in the folder broker that are no wake-ups, and a Redis that refuses commands.

`test_stack.py` has messages in Redis that are no wake-ups.
"""

from __future__ import annotations

from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection

from app.registry.wakeups import celery_settings
from tests.faults.redis_server import RedisServer
from worker.runtime.broker import FolderTransport, RedisTransport


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


def test_a_redis_that_refuses_to_write_is_asked_again_as_one_that_is_away(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        Connection(f"redis://127.0.0.1:{server.port}/0", transport=RedisTransport) as connection,
        connection.SimpleQueue("io") as queue,
    ):
        server.ask("CONFIG", "SET", "min-replicas-to-write", 1)  # as with a full disk
        with pytest.raises(connection.connection_errors, match="NOREPLICAS"):
            queue.get(timeout=10)
        server.ask("CONFIG", "SET", "min-replicas-to-write", 0)
        queue.put("wake up")
        assert queue.get(timeout=10).payload == "wake up"
