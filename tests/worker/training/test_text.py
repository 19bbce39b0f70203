"""Captions encoded once: known by heart within a run, and from disk in the next."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.training.conftest import MakeBase
from worker.core.training.data import text as text_module
from worker.core.training.data.text import (
    LiveCaptionEncoder,
    LruCaptionEncoder,
    PrecomputedCaptionEncoder,
)

CAPTIONS = ["a pear, ink", "", "a castle"]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every caption that a text encoder was asked for."""
    asked: list[str] = []
    original = text_module.encode_prompts

    def counted(base: Any, prompts: list[str], **options: Any) -> Any:
        asked.extend(prompts)
        return original(base, prompts, **options)

    monkeypatch.setattr(text_module, "encode_prompts", counted)
    return asked


@pytest.mark.parametrize("family", ["shallow_sd15", "shallow_sdxl"])
def test_a_second_run_asks_no_encoder_and_reads_the_very_same_states(
    family: str, request: pytest.FixtureRequest, tmp_path: Path, encoded: list[str]
) -> None:
    make_base: MakeBase = request.getfixturevalue(family)
    first = PrecomputedCaptionEncoder(make_base(), CAPTIONS, device="cpu", folder=tmp_path)(
        CAPTIONS
    )
    assert encoded == CAPTIONS
    second = PrecomputedCaptionEncoder(
        make_base(), reversed(CAPTIONS), device="cpu", folder=tmp_path
    )(CAPTIONS)
    assert encoded == CAPTIONS
    assert torch.equal(first.hidden, second.hidden)
    assert (first.pooled is None) is (family == "shallow_sd15")
    if first.pooled is not None:
        assert second.pooled is not None
        assert torch.equal(first.pooled, second.pooled)


def test_another_layer_and_damaged_files_are_encoded_again(
    shallow_sd15: MakeBase, tmp_path: Path, encoded: list[str]
) -> None:
    usual = PrecomputedCaptionEncoder(shallow_sd15(), CAPTIONS[:1], device="cpu", folder=tmp_path)(
        CAPTIONS[:1]
    )
    other = PrecomputedCaptionEncoder(
        shallow_sd15(), CAPTIONS[:1], device="cpu", clip_skip=2, folder=tmp_path
    )
    assert not torch.equal(usual.hidden, other(CAPTIONS[:1]).hidden)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:30])
    again = PrecomputedCaptionEncoder(shallow_sd15(), CAPTIONS[:1], device="cpu", folder=tmp_path)(
        CAPTIONS[:1]
    )
    assert encoded == CAPTIONS[:1] * 3
    assert torch.equal(usual.hidden, again.hidden)


def test_all_ways_to_read_a_caption_agree(shallow_sd15: MakeBase) -> None:
    base = shallow_sd15()
    ways = [
        PrecomputedCaptionEncoder(base, CAPTIONS, device="cpu"),
        LruCaptionEncoder(base, device="cpu"),
        LiveCaptionEncoder(base, device="cpu"),
    ]
    with torch.no_grad():
        states = [way([CAPTIONS[2], CAPTIONS[0]]).hidden for way in ways]
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(states[0], states[2], atol=1e-4, rtol=1e-4)
