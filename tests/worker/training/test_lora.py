import copy

import pytest
import torch
from torch import nn

from tests.worker.training.adapters import fresh_adapter, look, scramble
from tests.worker.training.conftest import MakeBase
from worker.core.bases.load import encode_prompts
from worker.core.families.family import Component
from worker.core.training.adapter.lora import remove_adapters
from worker.core.training.config import AdapterKind, Precision
from worker.core.training.errors import UnsupportedError
from worker.core.training.precision import autocast, cast_frozen

KINDS = list(AdapterKind)


def test_text_paths_begin_with_text_model_in_both_encoders(shallow_sdxl: MakeBase) -> None:
    lora = fresh_adapter(shallow_sdxl())
    for component in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2):
        paths = [site.path for site in lora.sites if site.component is component]
        assert len(paths) == 12
        assert all(path.startswith("text_model.encoder.layers.") for path in paths)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["shallow_sd15", "shallow_sdxl"])
def test_a_fresh_adapter_changes_nothing(
    family: str, kind: AdapterKind, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(family)()
    before = look(base)
    fresh_adapter(base, kind=kind, targets="all")
    assert torch.equal(look(base), before)


@pytest.mark.parametrize("family", ["shallow_sd15", "shallow_sdxl"])
def test_the_extracted_matrices_are_the_whole_change(
    family: str, request: pytest.FixtureRequest
) -> None:
    """Adding alpha / rank * up @ down to a pristine base's weights gives the same pictures."""
    base = request.getfixturevalue(family)()
    pristine = copy.deepcopy(base)
    lora = fresh_adapter(base, targets="all")
    scramble(lora)
    for module in lora.extract().modules:
        assert module.scale == 2.0
        model = pristine.adaptable()[module.component.value]
        path = module.path
        if module.component is Component.TEXT_ENCODER and not hasattr(model, "text_model"):
            path = path.removeprefix("text_model.")
        layer = model.get_submodule(path)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        with torch.no_grad():
            layer.weight += module.delta()
    before, after = look(pristine), look(base)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    with lora.disabled():
        assert not torch.allclose(look(base), after, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_is_the_base_and_on_again_trains(
    kind: AdapterKind, smallest_sd15: MakeBase
) -> None:
    base = smallest_sd15()
    before = look(base)
    lora = fresh_adapter(base, kind=kind)
    scramble(lora)
    with lora.disabled():
        assert torch.equal(look(base), before)
    assert not torch.equal(look(base), before)
    assert all(parameter.requires_grad for parameter in lora.parameters())


def test_only_the_adapter_is_trained(smallest_sd15: MakeBase) -> None:
    base = smallest_sd15()
    lora = fresh_adapter(base)
    ours = {id(parameter) for parameter in lora.parameters()}
    for model in (base.denoiser, *base.text_encoders):
        for parameter in model.parameters():
            assert parameter.requires_grad is (id(parameter) in ours)


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_depends_on_its_generator_alone(
    kind: AdapterKind, smallest_sd15: MakeBase
) -> None:
    torch.manual_seed(5)
    one = fresh_adapter(smallest_sd15(), kind=kind)
    torch.manual_seed(6)
    two = fresh_adapter(smallest_sd15(), kind=kind)
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right)
        assert left.dtype is torch.float32
    assert one.parameters()[0].abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_are_fp32_beside_a_half_precision_base(
    kind: AdapterKind, smallest_sd15: MakeBase
) -> None:
    base = smallest_sd15()
    base.denoiser.to(torch.bfloat16)
    lora = fresh_adapter(base, kind=kind)
    assert all(p.dtype is torch.float32 for p in lora.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_every_matrix_learns_in_half_precision(kind: AdapterKind, shallow_sd15: MakeBase) -> None:
    base = shallow_sd15()
    lora = fresh_adapter(base, kind=kind, targets="all")
    scramble(lora)
    for model in (base.denoiser, *base.text_encoders):
        cast_frozen(model, Precision.BF16)
    with autocast(Precision.BF16, device="cpu"):
        loss = look(base, gradients=True).square().mean()
    loss.backward()
    for name, parameter in lora.named_parameters().items():
        gradient = parameter.grad
        assert gradient is not None
        assert gradient.dtype is torch.float32
        assert gradient.isfinite().all()
        # at the UNet's bottom a picture is one token, which can only look at itself
        if not any(part in name for part in (".attn1.to_q.", ".attn1.to_k.")):
            assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_adapter_leaves_the_base_as_it_was(
    kind: AdapterKind, shallow_sd15: MakeBase
) -> None:
    base = shallow_sd15()
    before, names = look(base), [name for name, _ in base.denoiser.named_parameters()]
    scramble(fresh_adapter(base, targets="all", kind=kind))
    for model in (base.denoiser, *base.text_encoders):
        remove_adapters(model)
    assert [name for name, _ in base.denoiser.named_parameters()] == names
    assert torch.equal(look(base), before)
    fresh_adapter(base, rank=3)


def test_gradients_reach_the_text_encoders(shallow_sdxl: MakeBase) -> None:
    base = shallow_sdxl()
    lora = fresh_adapter(base)
    embeddings = encode_prompts(base, ["castle"], device="cpu")
    assert embeddings.pooled is not None
    (embeddings.hidden.square().sum() + embeddings.pooled.square().sum()).backward()
    ups = [up.grad for up in lora.parameters(text=True, up=True)]
    assert sum(grad is not None and bool(grad.abs().sum() > 0) for grad in ups) >= 20


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_is_another_strength_for_a_while(kind: AdapterKind, smallest_sd15: MakeBase) -> None:
    lora = fresh_adapter(smallest_sd15(), kind=kind)
    scramble(lora)
    layers = [site.layer for site in lora.sites]
    whole = [layer.get_delta_weight("default").detach() for layer in layers]
    kept = lora.extract().modules[0]
    with lora.scaled(0.5):
        for layer, full in zip(layers, whole, strict=True):
            torch.testing.assert_close(layer.get_delta_weight("default"), full / 2)
        inside = lora.extract().modules[0]
        assert inside.alpha == kept.alpha
        assert torch.equal(inside.up, kept.up)
    for layer, full in zip(layers, whole, strict=True):
        assert torch.equal(layer.get_delta_weight("default"), full)


def test_a_scale_is_taken_back_after_an_error(smallest_sd15: MakeBase) -> None:
    lora = fresh_adapter(smallest_sd15())
    with pytest.raises(KeyError), lora.scaled(0):
        raise KeyError
    assert {site.layer.scaling["default"] for site in lora.sites} == {2.0}


def test_up_matrices_are_a_loras_alone(shallow_sd15: MakeBase, smallest_sd15: MakeBase) -> None:
    lora = fresh_adapter(shallow_sd15())
    names = {id(parameter): name for name, parameter in lora.named_parameters().items()}
    ups = [names[id(parameter)] for parameter in lora.parameters(text=False, up=True)]
    assert len(ups) == 16
    assert all(name.startswith("unet.") and name.endswith(".up") for name in ups)
    rest = [names[id(parameter)] for parameter in lora.parameters(up=False)]
    assert len(rest) == 16 + 12
    assert all(name.endswith(".down") for name in rest)
    for kind in (AdapterKind.LOHA, AdapterKind.LOKR):
        other = fresh_adapter(smallest_sd15(), kind=kind)
        assert other.parameters(up=True) == []
        assert len(other.parameters(up=False)) == len(other.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_each_component_has_its_own_rank_and_strength(
    kind: AdapterKind, smallest_sdxl: MakeBase
) -> None:
    lora = fresh_adapter(smallest_sdxl(), kind=kind, rank=2, alpha=4, text_encoder_rank=3)
    for site in lora.sites:
        text = site.component is not Component.DENOISER
        assert site.layer.r["default"] == (3 if text else 2)
        assert site.layer.scaling["default"] == 2.0  # an empty alpha is as strong as the UNet's
    lora = fresh_adapter(smallest_sdxl(), kind=kind, text_encoder_rank=4, text_encoder_alpha=1)
    strengths = {(site.component, site.layer.scaling["default"]) for site in lora.sites}
    assert strengths == {
        (Component.DENOISER, 2.0),
        (Component.TEXT_ENCODER, 0.25),
        (Component.TEXT_ENCODER_2, 0.25),
    }


def test_ranks_and_alphas_land_in_the_canonical_file(smallest_sd15: MakeBase) -> None:
    lora = fresh_adapter(
        smallest_sd15(), rank=2, alpha=0.1, text_encoder_rank=3, text_encoder_alpha=0.7
    )
    seen = {(m.component, m.rank, m.alpha) for m in lora.extract().modules}
    assert seen == {(Component.DENOISER, 2, 0.1), (Component.TEXT_ENCODER, 3, 0.7)}


@pytest.mark.parametrize("kind", KINDS)
def test_rank_stabilized_is_alpha_over_the_root_of_the_rank(
    kind: AdapterKind, smallest_sd15: MakeBase
) -> None:
    lora = fresh_adapter(smallest_sd15(), kind=kind, rank=4, alpha=3, rank_stabilized=True)
    assert {site.layer.scaling["default"] for site in lora.sites} == {1.5}
    assert {module.scale for module in lora.extract().modules} == {1.5}
    lora = fresh_adapter(
        smallest_sd15(),
        kind=kind,
        alpha=3,
        rank=4,
        rank_stabilized=True,
        text_encoder_rank=9,
        text_encoder_alpha=6,
    )
    texts = [site for site in lora.sites if site.component is not Component.DENOISER]
    assert {site.layer.scaling["default"] for site in texts} == {2.0}


def test_a_rank_above_every_layer_is_refused_and_one_above_some_is_not(
    shallow_sd15: MakeBase,
) -> None:
    assert (
        fresh_adapter(shallow_sd15(), rank=64).size > 0
    )  # the first block is 32 wide, the others 64
    with pytest.raises(UnsupportedError, match=r"widest layers \(64\)"):
        fresh_adapter(shallow_sd15(), rank=65)
    with pytest.raises(UnsupportedError, match="Rank 65"):
        fresh_adapter(shallow_sd15(), text_encoder_rank=65)
