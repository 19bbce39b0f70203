"""Captions encoded once: known by heart within a run, and from disk in the next."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen3Model

from tests.worker.bases.tiny_zimage import qwen3_config, qwen_tokenizer
from tests.worker.training.conftest import MakeBase
from worker.core.bases.load import LoadedBase
from worker.core.families.family import BaseFamily
from worker.core.training.data import tensor_cache
from worker.core.training.data import text as text_module
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.text import (
    LiveCaptionEncoder,
    LruCaptionEncoder,
    PrecomputedCaptionEncoder,
    describe_cut_captions,
)
from worker.core.training.errors import LostCacheError

CAPTIONS = ["a pear, ink", "", "a castle"]


@pytest.fixture(scope="module")
def zimage() -> LoadedBase:
    """The text encoder of a Z-Image."""
    torch.manual_seed(0)
    info: Any = SimpleNamespace(
        family=BaseFamily.ZIMAGE, fingerprint="0" * 64, zero_empty_negative=False
    )
    encoder = Qwen3Model(qwen3_config()).eval()
    return LoadedBase(info, text_encoders=[encoder], tokenizers=[qwen_tokenizer()])


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


@pytest.mark.parametrize("family", ["zimage", "shallow_sd15"])
def test_captions_that_a_base_does_not_read_to_the_end_are_counted(
    family: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(family)
    base = found if family == "zimage" else found()

    def said(*captions: str) -> str:
        images = [TrainingImage(Path("a.png"), "", caption) for caption in captions]
        return describe_cut_captions(base, images)

    words = "a fox in the snow, " * 60
    assert said("", "a fox", "a pear") == ""
    once = said("a fox", words, words)
    assert once.startswith("1 caption is too long for this base model, which does not read its end")
    assert once.split("“")[1].split("…”")[0] in words
    assert said(words, f"and {words}").startswith("2 captions are too long")


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


def test_a_large_text_encoder_leaves_its_captions_on_disk(
    zimage: LoadedBase, tmp_path: Path, encoded: list[str]
) -> None:
    exact = LiveCaptionEncoder(zimage, device="cpu")(CAPTIONS)
    runs = [
        PrecomputedCaptionEncoder(zimage, CAPTIONS, device="cpu", folder=folder)
        for folder in (tmp_path, tmp_path, None)
    ]
    assert encoded == CAPTIONS * 3  # the exact ones, the first and the third
    found = [run([*CAPTIONS, CAPTIONS[0]]) for run in runs]
    assert all(torch.equal(one.hidden, found[0].hidden) for one in found)
    assert exact.lengths is not None
    assert all(one.lengths == (*exact.lengths, exact.lengths[0]) for one in found)
    assert found[0].hidden.dtype is torch.bfloat16
    torch.testing.assert_close(
        found[0].hidden[:3].float(), exact.hidden, atol=1e-3, rtol=2**-7, check_dtype=False
    )
    assert torch.equal(runs[0](["a castle"]).hidden, found[0].hidden[2:3, : exact.lengths[2]])
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(LostCacheError, match="disappeared from the cache"):
        runs[0](CAPTIONS)
    assert runs[2](CAPTIONS).lengths == exact.lengths


def test_a_full_disk_is_an_error_where_captions_are_read_from_it(
    zimage: LoadedBase, shallow_sd15: MakeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = tensor_cache.write_atomically

    def fills_up(path: Path, content: bytes, **options: Any) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content, **options)
        written.append(path)

    monkeypatch.setattr(tensor_cache, "write_atomically", fills_up)
    with pytest.raises(OSError, match="No space left"):
        PrecomputedCaptionEncoder(zimage, CAPTIONS, device="cpu", folder=tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == written
    states = PrecomputedCaptionEncoder(shallow_sd15(), CAPTIONS, device="cpu", folder=tmp_path)
    assert states(CAPTIONS).hidden.shape[0] == 3
