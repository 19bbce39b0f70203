"""Which layers are chosen: by kind, and by block."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.worker.bases.tiny_zimage import zimage_transformer
from tests.worker.training.adapters import fresh_adapter
from tests.worker.training.conftest import MakeBase
from worker.core.bases.load import LoadedBase
from worker.core.families.family import BaseFamily, Component
from worker.core.families.variants import Variant
from worker.core.training.adapter.lora import (
    blocks_of,
    target_layers,
    text_targets,
    unet_targets,
)
from worker.core.training.config import AdapterKind, Targets, TrainConfig
from worker.core.training.errors import UnsupportedError
from worker.core.training.prepare import check_supported


def _chosen(base: LoadedBase, blocks: str, targets: Targets = Targets.ALL) -> set[str]:
    return set(unet_targets(base.denoiser, targets, blocks, family=base.info.family))


def test_attention_is_every_projection_of_every_attention(sd15: MakeBase) -> None:
    base = sd15()
    paths = unet_targets(base.denoiser, Targets.ATTENTION, family=BaseFamily.SD1)
    assert len(paths) == 16 * 2 * 4  # SD 1.5: 16 transformers, self and cross, q k v out
    assert all(
        path.rsplit(".attn", 1)[1][2:] in {"to_q", "to_k", "to_v", "to_out.0"} for path in paths
    )
    assert len(text_targets(base.text_encoders[0], Targets.ATTENTION)) == 3 * 4


def test_each_kind_of_targets_contains_the_one_before(sd15: MakeBase, sdxl: MakeBase) -> None:
    for make in (sd15, sdxl):
        base = make()
        attention, linear, everything = (
            set(unet_targets(base.denoiser, kind, family=base.info.family)) for kind in Targets
        )
        assert attention < linear < everything
        assert any(path.endswith("ff.net.2") for path in linear - attention)
        assert any(path.endswith("proj_in") for path in linear - attention)
        assert any(path.endswith("resnets.0.conv1") for path in everything - linear)
        assert any(path.endswith("downsamplers.0.conv") for path in everything - linear)
        assert not any("conv_in" in path or "time_embedding" in path for path in everything)


def test_blocks_have_short_names(sd15: MakeBase, sdxl: MakeBase) -> None:
    assert " ".join(blocks_of(sdxl().denoiser)) == (
        "down.0 down.1 down.1.0 down.1.1 down.2 down.2.0 down.2.1 mid mid.0 "
        "up.0 up.0.0 up.0.1 up.0.2 up.1 up.1.0 up.1.1 up.1.2 up.2"
    )
    named = blocks_of(sd15().denoiser)
    assert named["up.3.2"] == "up_blocks.3.attentions.2"
    assert len(named) == 4 + 6 + 2 + 4 + 9


def test_a_block_is_all_its_layers_and_nothing_else(sd15: MakeBase) -> None:
    base = sd15()
    everything = _chosen(base, "all")
    down = _chosen(base, "down.1")
    assert down == {path for path in everything if path.startswith("down_blocks.1.")}
    for inside in ("attentions.0", "resnets.0.conv_shortcut", "resnets.1", "downsamplers.0.conv"):
        assert any(path.startswith(f"down_blocks.1.{inside}") for path in down)
    up = _chosen(base, "up.1.2")
    assert up == {path for path in everything if path.startswith("up_blocks.1.attentions.2.")}
    assert len(up) > 10
    assert _chosen(base, "up.1.2 ,mid,down.1") == down | up | _chosen(base, "mid")
    attention = _chosen(base, "down.1", Targets.ATTENTION)
    assert len(attention) == 2 * 2 * 4
    assert attention < down


def test_the_blocks_of_one_side_and_the_mid_are_the_whole(sdxl: MakeBase) -> None:
    base = sdxl()
    names = [name for name in blocks_of(base.denoiser) if name.count(".") < 2 and name != "mid.0"]
    assert _chosen(base, ", ".join(names)) == _chosen(base, "all")


def test_b_lora_takes_one_attention_for_style_and_one_for_content(sdxl: MakeBase) -> None:
    base = sdxl()
    for blocks, attention in (("style", 1), ("content", 0)):
        chosen = _chosen(base, blocks)
        assert chosen == _chosen(base, f"up.0.{attention}")
        assert all(path.startswith(f"up_blocks.0.attentions.{attention}.") for path in chosen)


@pytest.mark.parametrize("kind", list(AdapterKind))
def test_only_the_chosen_layers_get_an_adapter(kind: AdapterKind, sdxl: MakeBase) -> None:
    base = sdxl()
    expected = _chosen(base, "style", Targets.LINEAR)
    lora = fresh_adapter(base, blocks="style", targets="linear", kind=kind)
    found = {site.path for site in lora.sites if site.component is Component.DENOISER}
    assert found == expected
    assert len(lora.sites) > len(found)  # text encoders have no blocks to choose from


@pytest.mark.parametrize("blocks", ["style", "content"])
def test_b_lora_is_for_sdxl_alone(blocks: str, sd15: MakeBase) -> None:
    with pytest.raises(UnsupportedError, match=f"“{blocks}” are known for SDXL only"):
        fresh_adapter(sd15(), blocks=blocks)


def test_a_block_that_is_not_there_is_refused_with_those_that_are(sdxl: MakeBase) -> None:
    with pytest.raises(
        UnsupportedError, match=r"no UNet block down\.3\. Choose from down\.0, down\.1, "
    ):
        fresh_adapter(sdxl(), blocks="mid, down.3")
    with pytest.raises(UnsupportedError, match=r"no UNet block up\.2\.0"):
        fresh_adapter(sdxl(), blocks="up.2.0")


def test_a_block_without_a_layer_is_refused_with_those_that_have_some(sdxl: MakeBase) -> None:
    with pytest.raises(UnsupportedError) as raised:
        fresh_adapter(sdxl(), blocks="down.0, down.1")
    assert str(raised.value).startswith(
        "The block down.0 has no layers for the target modules “attention”. Choose from down.1, "
    )
    assert " down.0," not in str(raised.value).partition("Choose")[2]
    assert fresh_adapter(sdxl(), blocks="down.0", targets="all").sites


def test_a_base_without_any_layer_to_train_is_refused(sd15: MakeBase) -> None:
    """Its layers are named like those of another family, as a wrong guess of the family does."""
    base, config = sd15(), TrainConfig()
    with pytest.raises(UnsupportedError, match="no layers for the target modules “attention”"):
        target_layers(base.denoiser, base.text_encoders, config, family=BaseFamily.ZIMAGE)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"resolution": 72}, "use 64 or 80 instead of 72"),
        ({"sample_prompts": ["a kite --w 96 --h 40"]}, "use 32 or 48 instead of 40"),
    ],
)
def test_sides_that_the_family_cannot_have_are_refused(
    sd15: MakeBase, settings: dict[str, Any], reason: str | None
) -> None:
    base = sd15()
    check_supported(TrainConfig(**settings), base, device="cpu")
    base.info = replace(base.info, family=BaseFamily.ZIMAGE)
    base.denoiser = zimage_transformer()
    if reason is None:
        check_supported(TrainConfig(**settings), base, device="cpu")
        return
    with pytest.raises(UnsupportedError, match=reason):
        check_supported(TrainConfig(**settings), base, device="cpu")


@pytest.mark.parametrize(
    ("family", "way"),
    [
        (BaseFamily.ZIMAGE, "Train on Z-Image, and use the adapter on Turbo"),
        (BaseFamily.KLEIN, r"Train on FLUX\.2 klein base, and use the adapter on this one"),
    ],
)
def test_training_on_a_turbo_base_is_refused_before_its_layers_are_read(
    family: BaseFamily, way: str
) -> None:
    info = SimpleNamespace(family=family, variant=Variant.TURBO)
    base = LoadedBase(info)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match=way):
        check_supported(TrainConfig(), base, device="cpu")
