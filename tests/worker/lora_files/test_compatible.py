"""An adapter for another base is rejected with the layers that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import worker.core.starter
from tests.conftest import embedded_info
from tests.worker.base_shapes import base_shapes
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.bases.load import load_base
from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.compatible import AdapterMismatchError, explain_mismatch, require_fit

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def starter() -> Shapes:
    return base_shapes(load_base(worker.core.starter.PATH))


def test_an_adapter_of_the_same_base_fits(starter: Shapes) -> None:
    assert explain_mismatch(random_adapter(starter), starter) is None


def test_another_text_width_is_named(starter: Shapes, sd15_folder: Path) -> None:
    other = random_adapter(base_shapes(load_base(sd15_folder)))
    with pytest.raises(AdapterMismatchError) as raised:
        require_fit(other, starter, base_name="starter")
    width = embedded_info().cross_attention_dim
    assert str(raised.value) == (
        f"This adapter was made for a base with cross-attention width 64; starter has {width}. "
        f"Choose a base with width 64, or an adapter for width {width}."
    )


def test_an_sdxl_adapter_is_called_so(starter: Shapes) -> None:
    wide = {
        f"unet.{block}.transformer_blocks.0.attn2.to_k": (640, 2048)
        for block in ("down_blocks.1.attentions.0", "up_blocks.1.attentions.0")
    }
    sentence = explain_mismatch(
        random_adapter(wide), family_shapes(BaseFamily.SD1), base_name="“my SD 1.5”"
    )
    assert sentence is not None
    assert "was made for an SDXL base" in sentence
    assert "“my SD 1.5” has 768" in sentence


def test_a_layer_that_the_base_lacks_is_named(starter: Shapes) -> None:
    adapter = random_adapter(starter, choose=lambda key: key.endswith("fc1"))
    moved = replace(adapter.modules[0], path="text_model.encoder.layers.11.mlp.fc1")
    sentence = explain_mismatch(replace(adapter, modules=(moved,)), starter, base_name="starter")
    assert sentence is not None
    assert "starter has no layer text_encoder.text_model.encoder.layers.11.mlp.fc1" in sentence


def test_other_shapes_of_a_layer_are_named(starter: Shapes) -> None:
    adapter = random_adapter(starter, choose=lambda key: key.endswith("fc1"))
    narrow = replace(adapter.modules[0], down=adapter.modules[0].down[:, :100])
    sentence = explain_mismatch(replace(adapter, modules=(narrow,)), starter, base_name="starter")
    assert sentence is not None
    out, width = narrow.up.shape[0], embedded_info().cross_attention_dim
    assert f"weights of {out} × 100, but starter has {out} × {width}" in sentence
