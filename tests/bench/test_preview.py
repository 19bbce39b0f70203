"""The benchmark of the playground: that it runs and that both sides agree; no time is asserted."""

from __future__ import annotations

import pytest

from bench import preview


def test_both_sides_generate_the_same_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "IMAGES", 2)
    monkeypatch.setattr(preview, "STRIP", preview.STRIP[:2])
    preview.main(["--base", "tiny", "--steps", "1", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert "images differ by at most 1 of 255 levels" in printed
    rows = {line.split("  ")[0] for line in printed.splitlines()}
    assert {"new weight of three adapters", "four images of one request"} <= rows
