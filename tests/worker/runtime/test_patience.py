"""Errors that are retried during an outage, and errors that are not."""

from __future__ import annotations

import pytest

from app.registry.blobs.guard import JustDeleted
from worker.runtime.outages.patience import reason_to_wait, wait_out


def test_a_row_whose_file_was_just_deleted_is_not_written_again_and_again() -> None:
    """Its job is done again as a whole, which stores the file again."""
    tried = []

    def write() -> None:
        tried.append(1)
        raise JustDeleted("gone")

    with pytest.raises(JustDeleted):
        wait_out(write, is_over=lambda _: len(tried) > 2, on_wait=lambda _: None)
    assert len(tried) == 1
    assert reason_to_wait(JustDeleted("gone")) is not None
