"""What the processes that compute are started with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from worker.runtime.device import SECRETS, child_environment


def test_a_process_that_computes_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("BRUSHWORK_DEVICE", "cpu")
    program = "import os; print('hush' in os.environ.values(), os.environ['BRUSHWORK_DEVICE'])"
    told = subprocess.check_output(
        [sys.executable, "-c", program], env=child_environment(1), text=True
    )
    assert told.split() == ["False", "cpu"]
