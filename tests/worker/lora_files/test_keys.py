"""Every layer of every family is recognized by every name that programs give it."""

from __future__ import annotations

import pytest

from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily, Component
from worker.core.families.stable_diffusion.names import kohya_stem, to_ldm
from worker.core.lora_files.keys import Leaf, Naming, parse_tensor_name

UNETS = (BaseFamily.SD1, BaseFamily.SD2, BaseFamily.SDXL)
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "text_model.encoder.layers.3.self_attn.out_proj"


def split(key: str) -> tuple[Component, str]:
    component, _, path = key.partition(".")
    return Component(component), path


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize("naming_of", UNETS)
def test_kohya_names_in_both_block_namings(family: BaseFamily, naming_of: BaseFamily) -> None:
    for key in family_shapes(family):
        module = split(key)
        found = parse_tensor_name(f"{kohya_stem(naming_of, *module)}.lora_up.weight")
        # the only encoder of SD 1.x has no number
        if naming_of is not BaseFamily.SDXL and module[0] is Component.TEXT_ENCODER_2:
            continue
        assert found is not None, key
        assert (found.module, found.leaf, found.naming) == (module, Leaf.UP, Naming.KOHYA)


@pytest.mark.parametrize("family", UNETS)
def test_dotted_names_with_and_without_their_prefixes(family: BaseFamily) -> None:
    for key in family_shapes(family):
        component, path = split(key)
        names = [f"{key}.lora_A.weight", f"{key}.lora_A.default.weight", f"{key}.down"]
        if component is Component.DENOISER:
            names += [
                f"diffusion_model.{to_ldm(path)}.lora_down.weight",
                f"base_model.model.{path}.lora_A.weight",
            ]
        else:  # without the wrapper, as in transformers 5.6
            names.append(f"{component}.{path.removeprefix('text_model.')}.lora_A.weight")
        for name in names:
            found = parse_tensor_name(name)
            assert found is not None, name
            assert (found.module, found.leaf) == ((component, path), Leaf.DOWN), name


@pytest.mark.parametrize(
    ("name", "component", "path", "naming"),
    [
        (f"unet.{QUERY}.lora.down.weight", Component.DENOISER, QUERY, Naming.SCRIPT),
        (
            f"unet.{QUERY.replace('to_q', 'processor.to_out_lora')}.down.weight",
            Component.DENOISER,
            QUERY.replace("to_q", "to_out.0"),
            Naming.OLD,
        ),
        (  # the oldest files do not name the component
            f"{QUERY.replace('to_q', 'processor.to_q_lora')}.down.weight",
            Component.DENOISER,
            QUERY,
            Naming.OLD,
        ),
        (
            f"text_encoder.{TEXT.replace('out_proj', 'to_out_lora')}.down.weight",
            Component.TEXT_ENCODER,
            TEXT,
            Naming.OLD,
        ),
        (
            f"text_encoder_2.{TEXT}.lora_linear_layer.down.weight",
            Component.TEXT_ENCODER_2,
            TEXT,
            Naming.SCRIPT,
        ),
        (
            f"text_encoders.clip_g.transformer.{TEXT}.lora_down.weight",
            Component.TEXT_ENCODER_2,
            TEXT,
            Naming.COMFY,
        ),
    ],
)
def test_rarer_names(name: str, component: Component, path: str, naming: Naming) -> None:
    found = parse_tensor_name(name)
    assert found is not None
    assert (found.component, found.path, found.leaf, found.naming) == (
        component,
        path,
        Leaf.DOWN,
        naming,
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "lora_unet_.alpha",
        "../../etc/x.lora_up.weight",
        "unet.../../x.lora_A.weight",
        "unet.down_blocks.0.ATTN.lora_A.weight",
        "text_model.encoder.layers.0.mlp.fc1.lora_A.weight",  # of which encoder?
        "lora_te3_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_unet_single_blocks_0_modulation_lin.lora_up.weight",  # Flux
        "transformer.blocks.0.attn.to_q.lora_A.weight",
        f"unet.{QUERY}.lora_C.weight",
        f"unet.{QUERY}.weight",
        "lora_unet_input_blocks_x_1_proj_in.alpha",
    ],
)
def test_other_names_are_not_guessed(name: str) -> None:
    assert parse_tensor_name(name) is None
