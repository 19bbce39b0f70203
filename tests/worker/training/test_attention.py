"""The attention of a training on a CPU: the same numbers as peft's layers, in fewer operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.worker.training.conftest import MakeBase
from worker.core.training.adapter.lora import Lora, inject_adapter
from worker.core.training.attention import TrainingAttention, speed_up_attention
from worker.core.training.config import AdapterKind, Targets, TrainConfig


def prepared(make: MakeBase, **changes: Any) -> tuple[Any, Lora]:
    """A UNet with an adapter that already does something."""
    base = make()
    config = TrainConfig(rank=2, alpha=3, targets=Targets.LINEAR, **changes)
    generator = torch.Generator().manual_seed(1)
    lora = inject_adapter(base.denoiser, [], config, generator=generator, family=base.info.family)
    for parameter in lora.parameters():
        parameter.data.normal_(0, 0.05, generator=generator)
    return base.denoiser, lora


def answer(unet: Any) -> Tensor:
    """The UNet's output for the same input each time."""
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn((2, unet.config.in_channels, 8, 8), generator=generator)
    text = torch.randn((2, 7, unet.config.cross_attention_dim), generator=generator)
    predicted: Tensor = unet(latents.to(unet.dtype), torch.tensor([3, 700]), text.to(unet.dtype))[0]
    return predicted.to(torch.promote_types(predicted.dtype, torch.float32))


def gradients(unet: Any, lora: Lora) -> dict[str, Tensor]:
    """The gradient of every trained matrix."""
    for parameter in lora.parameters():
        parameter.grad = None
    answer(unet).square().mean().backward()  # type: ignore[no-untyped-call]
    found: dict[str, Tensor] = {}
    for name, parameter in lora.named_parameters().items():
        assert parameter.grad is not None
        found[name] = parameter.grad
    return found


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The distance of two sets of gradients, as a share of the second."""
    apart = sum(float((one[name] - other[name]).square().sum()) for name in one)
    return float((apart / sum(float(value.square().sum()) for value in other.values())) ** 0.5)


def test_it_gives_the_numbers_of_peft_and_torch(sd15: MakeBase) -> None:
    unet, lora = prepared(sd15)
    unet.double()  # so that only a mistake could make a difference
    usual, usual_gradients = answer(unet), gradients(unet, lora)
    speed_up_attention(unet)
    assert sum(isinstance(p, TrainingAttention) for p in unet.attn_processors.values()) == 32
    torch.testing.assert_close(answer(unet), usual, rtol=1e-9, atol=1e-9)
    assert distance(gradients(unet, lora), usual_gradients) < 1e-9


def test_it_gives_the_same_bits_each_time(shallow_sd15: MakeBase) -> None:
    unet, lora = prepared(shallow_sd15)
    speed_up_attention(unet)
    first, second = gradients(unet, lora), gradients(unet, lora)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_adapter_can_be_switched_off_and_scaled(shallow_sd15: MakeBase) -> None:
    unet, lora = prepared(shallow_sd15)
    with lora.disabled():
        base = answer(unet)
    with lora.scaled(0.5):
        half = answer(unet)
    speed_up_attention(unet)
    with lora.disabled():
        torch.testing.assert_close(answer(unet), base, rtol=1e-4, atol=1e-5)
    with lora.scaled(0.5):
        torch.testing.assert_close(answer(unet), half, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [AdapterKind.LOHA, AdapterKind.LOKR])
def test_other_kinds_stay_as_they_are(shallow_sd15: MakeBase, kind: AdapterKind) -> None:
    unet, _ = prepared(shallow_sd15, kind=kind)
    usual = answer(unet)
    speed_up_attention(unet)
    torch.testing.assert_close(answer(unet), usual, rtol=1e-4, atol=1e-5)


def test_in_bf16_its_gradients_stay_near_exact_ones(starter_base: MakeBase) -> None:
    # a trained base: in a random miniature bf16 gradients mean nothing, with peft's layers neither
    unet, lora = prepared(starter_base)
    exact = gradients(unet, lora)
    for parameter in unet.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    speed_up_attention(unet)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(unet, lora)
    assert all(gradient.dtype is torch.float32 for gradient in found.values())
    assert distance(found, exact) < 0.1
