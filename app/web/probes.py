"""Questions that may hang, such as to a bucket that does not answer: each in a thread of its own.

A question that hangs is not asked a second time, so that probes never pile up threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

AnswerT = TypeVar("AnswerT")


class Probe(Generic[AnswerT]):
    """A question, asked in a thread while somebody wants to know."""

    def __init__(self, name: str, ask: Callable[[], AnswerT]) -> None:
        self.name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._running: Future[AnswerT] | None = None

    async def answer(self, seconds: float) -> AnswerT:
        """The answer. Raises what the question raises, and TimeoutError after `seconds`."""
        asked = asyncio.wrap_future(self._start())
        return await asyncio.wait_for(asyncio.shield(asked), seconds)

    def _start(self) -> Future[AnswerT]:
        """The question that is running, or a new one."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(
                    target=self._run, args=(self._running,), name=f"probe-{self.name}", daemon=True
                ).start()
            return self._running

    def _run(self, future: Future[AnswerT]) -> None:
        try:
            found = self._ask()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(found)
