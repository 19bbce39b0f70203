"""Which device is chosen: one rule for workers and for the command line."""

from __future__ import annotations

import pytest
import torch

from worker.core.device import choose_device, has_device


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_kind_that_is_here_is_chosen(
    cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == chosen


def test_a_device_that_is_named_is_taken_at_its_word() -> None:
    assert choose_device("cuda:99") == "cuda:99"
    assert not has_device("cuda:99")
    assert has_device("cpu")
