"""A cancel and the steps that must not be torn apart."""

from __future__ import annotations

import threading

from worker.core.hub.adapters import CancelGuard

SECONDS = 10.0


def test_a_cancel_undoes_what_was_begun_and_no_step_is_begun_after_it() -> None:
    undoing = CancelGuard()
    happened: list[str] = []
    with undoing.step():
        undoing.undo = lambda: happened.append("undone")
    assert undoing.cancel()

    def go_on() -> None:
        with undoing.step():
            happened.append("committed")

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    thread.join(0.2)
    assert (thread.is_alive(), happened) == (True, ["undone"])


def test_a_cancel_waits_for_a_step_and_leaves_what_is_done() -> None:
    undoing = CancelGuard()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(undoing.cancel()), daemon=True)
    with undoing.step():
        thread.start()
        thread.join(0.2)
        assert answers == []
        undoing.is_done = True
    thread.join(SECONDS)
    assert answers == [False]
    with undoing.step():
        pass  # the lock is free again


def test_a_cancel_before_anything_was_begun_has_nothing_to_undo() -> None:
    assert CancelGuard().cancel()
