"""The benchmark of training on a GPU: that it runs, on few channels without one."""

from __future__ import annotations

import pytest

from bench import gpu


@pytest.mark.parametrize("base", sorted(gpu.SUBJECTS))
def test_it_compares_both_ways(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(
        ["--device", "cpu", "--tiny", "--base", base, "--batch", "1", "--rank", "2", "--steps", "1"]
    )
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(base)]
    assert [row[:4] for row in rows] == [[base, "tiny", "1", "no"], [base, "tiny", "1", "yes"]]
    assert all(float(row[4]) > 0 and float(row[6]) > 0 for row in rows)
