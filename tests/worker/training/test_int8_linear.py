"""Linear layers of int8 rows: what they compute, keep in memory and teach an adapter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.worker.bases.tiny_zimage import zimage_transformer
from worker.core.int8_linear import Int8Linear, quantize_linears, quantize_rows
from worker.core.training.adapter.kinds import ADAPTER_NAME, peft_config
from worker.core.training.config import AdapterKind, Precision
from worker.core.training.precision import cast_frozen


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(96, 48)


def test_each_row_is_off_by_at_most_half_a_step_of_its_own(linear: nn.Linear) -> None:
    with torch.no_grad():
        linear.weight[0] *= 100  # a large row does not make the others coarse
        linear.weight[1] = 0
    rows, scale = quantize_rows(linear.weight)
    assert (rows.dtype, scale.dtype, rows.abs().max()) == (torch.int8, torch.float32, 127)
    found = Int8Linear.of(linear).dequantized()
    assert ((found - linear.weight).abs() <= scale[:, None] * 0.5001).all()
    assert torch.equal(found[1], torch.zeros(96))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_rounded_weight(
    linear: nn.Linear, dtype: torch.dtype
) -> None:
    layer = Int8Linear.of(linear).to(dtype)
    x = torch.randn(2, 5, 96).to(dtype).requires_grad_()
    y = layer(x)
    assert y.dtype is dtype
    exact = x.detach().float().requires_grad_()
    expected = F.linear(exact, layer.dequantized(), linear.bias.float())
    chance = torch.randn_like(expected)
    y.backward(chance.to(dtype))
    expected.backward(chance.to(dtype).float())
    assert x.grad is not None
    assert exact.grad is not None
    for found, right in ((y, expected), (x.grad, exact.grad)):
        error = (found.float() - right).norm() / right.norm()
        assert error < (1e-6 if dtype is torch.float32 else 4e-3)  # what bf16 rounds


def test_autocast_gives_its_type(linear: nn.Linear) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert Int8Linear.of(linear)(torch.randn(2, 96)).dtype is torch.bfloat16


def test_only_int8_is_kept_for_the_backward_pass(linear: nn.Linear) -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Int8Linear.of(linear)(torch.randn(2, 96, requires_grad=True))
    large = [tensor.dtype for tensor in kept if tensor.numel() >= linear.weight.numel()]
    assert large == [torch.int8]


def test_casting_leaves_the_rows_alone(linear: nn.Linear) -> None:
    layer = Int8Linear.of(linear)
    before = layer.dequantized()
    cast_frozen(layer.requires_grad_(False).to(torch.bfloat16), Precision.BF16)
    assert (layer.weight.dtype, layer.bias.dtype) == (torch.int8, torch.bfloat16)
    assert torch.equal(layer.dequantized(), before)
    again = Int8Linear.of(nn.Linear(96, 48))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.dequantized(), before)


def test_an_adapter_learns_through_rounded_layers_as_through_exact_ones() -> None:
    from peft import inject_adapter_in_model

    losses = []
    for is_rounded in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32)).requires_grad_(False)
        if is_rounded:
            assert quantize_linears(model, lambda path: path != "1") == 2
        config = peft_config(AdapterKind.LORA, rank=4, alpha=4, target_modules=["0", "2"])
        inject_adapter_in_model(config, model, adapter_name=ADAPTER_NAME)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert [(p.dtype, p.dim()) for p in trained] == [(torch.float32, 2)] * 4
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        x, target = torch.randn(16, 32), torch.randn(16, 32)
        for _ in range(30):
            loss = (model(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    exact, rounded = losses
    assert rounded == pytest.approx(exact, rel=0.03)
    assert rounded < 0.8


def test_a_rounded_transformer_predicts_nearly_the_same() -> None:
    torch.manual_seed(0)
    model = zimage_transformer(dim=64).eval()
    inputs = ([torch.randn(16, 1, 8, 8)], torch.tensor([0.3]), [torch.randn(9, 16)])
    with torch.no_grad():
        (exact,) = model(*inputs, return_dict=False)[0]
        count = quantize_linears(model, lambda path: path.startswith("layers."))
        (rounded,) = model(*inputs, return_dict=False)[0]
    assert count == 16
    assert 0 < (rounded - exact).norm() / exact.norm() < 0.02
    kinds = {
        type(model.get_submodule(path)) for path in ("layers.0.attention.to_q", "t_embedder.mlp.0")
    }
    assert kinds == {Int8Linear, nn.Linear}
