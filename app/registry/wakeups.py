"""Wake-up messages for workers. They may be lost or sent twice: the jobs are database rows."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from celery import Celery

from app.registry.job_kinds.states import Queue

TASK_NAMES: dict[str, str] = {queue: f"worker.tasks.{queue}" for queue in Queue}
VISIBILITY_SECONDS = 3600
FOLDER_POLL_SECONDS = 0.2
CONNECT_SECONDS = 4
CLOSE_SECONDS = 2.0
PROBE_QUEUE = "readiness"  # no worker reads it

log = logging.getLogger(__name__)


def celery_settings(broker_url: str) -> dict[str, Any]:
    """All Celery settings for a Redis, Valkey (TCP or Unix socket) or folder broker.

    No result backend, late acknowledgment or prefetch: leases on rows handle recovery, and a busy
    worker leaves messages to an idle one. `filesystem:///folder` stores the messages in a folder.
    """
    settings: dict[str, Any] = {
        "broker_url": broker_url,
        "task_ignore_result": True,
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "task_publish_retry": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": CONNECT_SECONDS,
        "worker_pool_start_method": "spawn",
        "worker_proc_alive_timeout": 60.0,  # a spawned child imports everything again
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_routes": {name: {"queue": queue} for queue, name in TASK_NAMES.items()},
        "task_create_missing_queues": True,
    }
    if urlsplit(broker_url).scheme == "filesystem":
        return settings | _folder_settings(Path(unquote(urlsplit(broker_url).path)))
    return settings | _redis_settings()


def _redis_settings() -> dict[str, Any]:
    return {
        "worker_disable_prefetch": True,  # other transports only warn about it
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": "brushwork:",
        },
    }


def _folder_settings(folder: Path) -> dict[str, Any]:
    messages, control = folder / "messages", folder / "control"
    for part in (messages, control):
        part.mkdir(parents=True, exist_ok=True)
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
            "polling_interval": FOLDER_POLL_SECONDS,
        },
    }


class WakeUps:
    """Sends wake-ups from a background thread, so that `send` never waits and never fails.

    Pending wake-ups for the same queue are merged into one.
    """

    def __init__(self, broker_url: str | None) -> None:
        """With `broker_url` None nothing is sent; workers find jobs by polling."""
        self._celery = Celery("brushwork-wakeups", set_as_current=False)
        self._closed = broker_url is None
        if broker_url is not None:
            self._celery.conf.update(celery_settings(broker_url))
        self._pending: set[str] = set()
        self._changed = threading.Condition()
        self._sending = False
        self._thread: threading.Thread | None = None

    def send(self, queue: str) -> None:
        """Wake a worker of `queue` soon, if the broker can be reached."""
        with self._changed:
            if self._closed:
                return
            self._pending.add(queue)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what the transport raises if the broker takes no message; nothing without one."""
        if self._celery.conf.broker_url is None or self._closed:
            return
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
            # a server without memory answers, and takes nothing
            with connection.SimpleQueue(PROBE_QUEUE) as queue:
                queue.put("")
                queue.clear()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Send pending wake-ups, waiting at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending and not self._sending, timeout)
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    break
                queue = self._pending.pop()
                self._sending = True
            self._publish(queue)
        self._celery.close()

    def _publish(self, queue: str) -> None:
        try:
            self._celery.send_task(TASK_NAMES[queue], queue=queue, retry=False, expires=3600)
        except Exception as error:  # whatever the transport raises: idle workers also poll
            log.warning("Could not send a wake-up to %s workers: %s", queue, error)
