"""Gradients of each kind of adapter at each kind of layer against central differences, fp64."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch

import pytest
import torch
from torch import Tensor, nn

from tests.costs import wide_but
from tests.worker.training.adapters import fresh_adapter, scramble
from tests.worker.training.conftest import MakeBase
from worker.core.bases.load import LoadedBase
from worker.core.training.adapter.lora import Lora, LoraSite
from worker.core.training.config import AdapterKind

LAYERS = {
    "attention": "unet.*.attn2.to_v",
    "attention output": "unet.*.attn1.to_out.0",
    "feed-forward": "unet.*.ff.net.0.proj",
    "projection into a transformer": "unet.*.proj_in",  # 1 x 1 in SD 1.5, linear in SDXL
    "convolution 3 x 3": "unet.*.conv1",
    "convolution 1 x 1": "unet.*.conv_shortcut",
    "convolution with a stride": "unet.*.downsamplers.0.conv",
    "time embedding": "unet.*.time_emb_proj",
    "text attention": "text_encoder.*.self_attn.q_proj",
    "text feed-forward": "text_encoder.*.mlp.fc1",
}
SDXL_LAYERS = {
    "projection into a transformer": LAYERS["projection into a transformer"],
    "second text encoder": "text_encoder_2.*.self_attn.q_proj",
}
LAYERS_OF = {"shallow_sd15": LAYERS, "shallow_sdxl": SDXL_LAYERS}
STEP = 1e-3
TOLERANCE = 1e-7  # found: at most 2e-9


CASES = [("shallow_sd15", kind) for kind in AdapterKind]
SDXL_CASES = [("shallow_sdxl", kind) for kind in AdapterKind]


@pytest.mark.parametrize(("family", "kind"), wide_but(CASES + SDXL_CASES, *CASES, SDXL_CASES[0]))
def test_gradients_are_the_slopes_of_the_loss(
    family: str, kind: AdapterKind, request: pytest.FixtureRequest
) -> None:
    base, layers = request.getfixturevalue(family)(), LAYERS_OF[family]
    lora, loss = _trained_in_double(base, kind)
    loss().backward()  # type: ignore[no-untyped-call]
    tried = {name: _site(lora, key) for name, key in layers.items()}
    _merge(lora.sites, keep=tried.values())
    for name, site in tried.items():
        with _alone(site, tried.values()):
            for factor, parameter in site.factors.items():
                assert _error(loss, parameter) < TOLERANCE, f"{name}: {factor}"


@pytest.mark.parametrize("kind", list(AdapterKind))
def test_the_check_notices_a_gradient_that_is_a_little_wrong(
    kind: AdapterKind, shallow_sd15: MakeBase
) -> None:
    lora, loss = _trained_in_double(shallow_sd15(), kind)
    attention = _site(lora, LAYERS["attention"])
    matrices = list(attention.factors.values())
    for parameter in matrices:
        parameter.register_hook(lambda gradient: gradient * 1.0001)
    loss().backward()  # type: ignore[no-untyped-call]
    _merge(lora.sites, keep=[attention])
    for parameter in matrices:
        assert _error(loss, parameter) > 10 * TOLERANCE


def _trained_in_double(base: LoadedBase, kind: AdapterKind) -> tuple[Lora, Callable[[], Tensor]]:
    """An adapter with random values in a base of fp64, and a loss over both.

    With few groups in its norms: of 32 in so narrow a UNet, some hold two numbers, whose norm is
    their sign, a step that has no slope.
    """
    base.denoiser.mid_block = None  # the other blocks have a layer of each type
    lora = fresh_adapter(base, kind=kind, targets="all")
    for model in (base.denoiser, *base.text_encoders):
        model.double()
    for module in base.denoiser.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = 4
    scramble(lora)
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    latents, weights = draw(1, 4, 8, 8), draw(1, 4, 8, 8)
    tokens = torch.randint(0, 49_000, (1, 5), generator=generator)
    added = None
    if len(base.text_encoders) == 2:
        pooled = base.denoiser.config.projection_class_embeddings_input_dim - 6 * 8
        added = {"text_embeds": draw(1, pooled), "time_ids": torch.full((1, 6), 64.0).double()}

    def loss() -> Tensor:
        hidden = torch.cat([encoder(tokens)[0] for encoder in _bodies(base)], dim=-1)
        predicted = base.denoiser(
            latents, torch.tensor([400]), encoder_hidden_states=hidden, added_cond_kwargs=added
        ).sample
        return (predicted * weights).mean() + predicted.square().mean()

    return lora, loss


def _bodies(base: LoadedBase) -> list[nn.Module]:
    """The text encoders without the second's projection, whose first output is not per token."""
    return [getattr(encoder, "text_model", encoder) for encoder in base.text_encoders]


def _site(lora: Lora, pattern: str) -> LoraSite:
    return next(site for site in lora.sites if fnmatch(site.key, pattern))


def _merge(sites: Iterable[LoraSite], *, keep: Iterable[LoraSite]) -> list[LoraSite]:
    """Put the changes of all sites but `keep` into their weights: the same loss in half the time.

    In fp64, whose rounding is a millionth of a millionth of what the slopes need.
    """
    kept = list(keep)
    merged = [site for site in sites if site not in kept]
    for site in merged:
        site.layer.merge()
    return merged


@contextmanager
def _alone(site: LoraSite, tried: Iterable[LoraSite]) -> Iterator[None]:
    """Merge the other sites while the context lasts."""
    merged = _merge(tried, keep=[site])
    yield
    for other in merged:
        other.layer.unmerge()


def _error(loss: Callable[[], Tensor], parameter: nn.Parameter) -> float:
    """The distance of gradient and slope, along itself and a random turn, over its length."""
    assert parameter.grad is not None
    gradient = parameter.grad
    generator = torch.Generator().manual_seed(4)
    turn = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype)
    direction = gradient / gradient.norm() + turn / turn.norm()
    wrong = _slope(loss, parameter, direction) - float((gradient * direction).sum())
    return abs(wrong) / float(gradient.norm())


def _slope(loss: Callable[[], Tensor], parameter: nn.Parameter, direction: Tensor) -> float:
    """Central differences of two widths, combined so that the error is of the fourth order."""

    def moved(steps: int) -> float:
        with _at(parameter, parameter.detach() + steps * STEP * direction), torch.no_grad():
            return float(loss())

    near, far = moved(1) - moved(-1), moved(2) - moved(-2)
    return (8 * near - far) / (12 * STEP)


@contextmanager
def _at(parameter: nn.Parameter, values: Tensor) -> Iterator[None]:
    before = parameter.data
    parameter.data = values
    try:
        yield
    finally:
        parameter.data = before
