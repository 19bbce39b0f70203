import copy

import pytest
import torch
from torch import nn

from tests.worker.training.conftest import MakeBase
from worker.adapters.canonical import Component
from worker.bases.load import LoadedBase
from worker.bases.text import encode_prompts
from worker.training.config import Targets, TrainConfig
from worker.training.denoise import predict
from worker.training.lora import Lora, inject, remove, text_targets, unet_targets
from worker.training.text import LiveText


def _inject(base: LoadedBase, **changes: object) -> Lora:
    settings = {"rank": 2, "alpha": 4, "train_text_encoder": True} | changes
    config = TrainConfig.model_validate(settings)
    generator = torch.Generator().manual_seed(0)
    return inject(base.unet, base.text_encoders, config, generator=generator)


def _scramble(lora: Lora) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in lora.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def _look(base: LoadedBase) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    channels = base.unet.config.in_channels
    latents = torch.randn(2, channels, 8, 8, generator=generator)
    text = LiveText(base, device="cpu")(["castle", ""])
    time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
    with torch.no_grad():
        return predict(base.unet, latents, torch.tensor([10, 800]), text, time_ids)


def test_attention_is_every_projection_of_every_attention(sd15: MakeBase) -> None:
    base = sd15()
    paths = unet_targets(base.unet, Targets.ATTENTION)
    assert len(paths) == 16 * 2 * 4  # SD 1.5: 16 transformers, self and cross, q k v out
    assert all(
        path.rsplit(".attn", 1)[1][2:] in {"to_q", "to_k", "to_v", "to_out.0"} for path in paths
    )
    assert len(text_targets(base.text_encoders[0], Targets.ATTENTION)) == 3 * 4


def test_each_kind_of_targets_contains_the_one_before(sd15: MakeBase, sdxl: MakeBase) -> None:
    for make in (sd15, sdxl):
        base = make()
        attention, linear, everything = (set(unet_targets(base.unet, kind)) for kind in Targets)
        assert attention < linear < everything
        assert any(path.endswith("ff.net.2") for path in linear - attention)
        assert any(path.endswith("proj_in") for path in linear - attention)
        assert any(path.endswith("resnets.0.conv1") for path in everything - linear)
        assert any(path.endswith("downsamplers.0.conv") for path in everything - linear)
        assert not any("conv_in" in path or "time_embedding" in path for path in everything)


def test_text_paths_begin_with_text_model_in_both_encoders(sdxl: MakeBase) -> None:
    lora = _inject(sdxl())
    for component in (Component.TEXT_ENCODER, Component.TEXT_ENCODER_2):
        paths = [site.path for site in lora.sites if site.component is component]
        assert len(paths) == 12
        assert all(path.startswith("text_model.encoder.layers.") for path in paths)


@pytest.mark.parametrize("family", ["sd15", "sdxl", "starter_base"])
def test_a_fresh_adapter_changes_nothing(family: str, request: pytest.FixtureRequest) -> None:
    base = request.getfixturevalue(family)()
    before = _look(base)
    _inject(base)
    assert torch.equal(_look(base), before)


@pytest.mark.parametrize("targets", list(Targets))
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_extracted_matrices_are_the_whole_change(
    family: str, targets: Targets, request: pytest.FixtureRequest
) -> None:
    """Adding alpha / rank * up @ down to a pristine base's weights gives the same pictures."""
    base = request.getfixturevalue(family)()
    pristine = copy.deepcopy(base)
    lora = _inject(base, targets=targets)
    _scramble(lora)
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
    before, after = _look(pristine), _look(base)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    with lora.switched_off():
        assert not torch.allclose(_look(base), after, rtol=1e-3, atol=1e-4)


def test_switched_off_is_the_base_and_on_again_trains(sd15: MakeBase) -> None:
    base = sd15()
    before = _look(base)
    lora = _inject(base)
    _scramble(lora)
    with lora.switched_off():
        assert torch.equal(_look(base), before)
    assert not torch.equal(_look(base), before)
    assert all(parameter.requires_grad for parameter in lora.parameters())


def test_only_the_adapter_is_trained(sd15: MakeBase) -> None:
    base = sd15()
    lora = _inject(base)
    ours = {id(parameter) for parameter in lora.parameters()}
    for model in (base.unet, *base.text_encoders):
        for parameter in model.parameters():
            assert parameter.requires_grad is (id(parameter) in ours)


def test_the_start_depends_on_its_generator_alone(sd15: MakeBase) -> None:
    torch.manual_seed(5)
    one = _inject(sd15())
    torch.manual_seed(6)
    two = _inject(sd15())
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right)
        assert left.dtype is torch.float32
    assert one.parameters()[0].abs().sum() > 0


def test_matrices_are_fp32_beside_a_half_precision_base(sd15: MakeBase) -> None:
    base = sd15()
    base.unet.to(torch.bfloat16)
    assert all(p.dtype is torch.float32 for p in _inject(base).parameters())


def test_a_removed_adapter_leaves_the_base_as_it_was(sd15: MakeBase) -> None:
    base = sd15()
    before, names = _look(base), [name for name, _ in base.unet.named_parameters()]
    _scramble(_inject(base, targets="all"))
    for model in (base.unet, *base.text_encoders):
        remove(model)
    assert [name for name, _ in base.unet.named_parameters()] == names
    assert torch.equal(_look(base), before)
    _inject(base, rank=3)


def test_gradients_reach_the_text_encoders(sdxl: MakeBase) -> None:
    base = sdxl()
    lora = _inject(base)
    embeddings = encode_prompts(base, ["castle"], device="cpu")
    assert embeddings.pooled is not None
    (embeddings.hidden.square().sum() + embeddings.pooled.square().sum()).backward()
    ups = [site.up.grad for site in lora.sites if site.component is not Component.UNET]
    assert sum(grad is not None and bool(grad.abs().sum() > 0) for grad in ups) >= 20
