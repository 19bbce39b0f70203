import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.worker.training.conftest import MakeBase
from worker.core.families.networks import network_of
from worker.core.training.adapter.lora import Lora
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.batches import Batch
from worker.core.training.data.text import LiveCaptionEncoder
from worker.core.training.learner import Learner, Model, NonFiniteError
from worker.core.training.precision import cast_frozen
from worker.core.training.prepare import add_adapter, make_process
from worker.core.words import LossWeighting, PredictionType

Setup = Callable[..., tuple[Learner, Lora, Batch]]


@pytest.fixture
def setup(smallest_sd15: MakeBase) -> Setup:
    def make(
        precision: Precision = Precision.FP32, **changes: object
    ) -> tuple[Learner, Lora, Batch]:
        settings = {"rank": 2, "train_text_encoder": True, "learning_rate": 1e-2} | changes
        config = TrainConfig.model_validate(settings)
        base = smallest_sd15()
        lora = add_adapter(base, config)
        for part in (base.denoiser, *base.text_encoders):
            cast_frozen(part, precision)
        process, text = (
            make_process(base, config, device="cpu"),
            LiveCaptionEncoder(base, device="cpu"),
        )
        network = network_of(base.info.family)
        model = Model(network, base.denoiser, text, process, precision, "cpu")
        generator = torch.Generator().manual_seed(0)
        latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
        batch = Batch(
            (0, 1), ("a pear", ""), latents, noise, torch.tensor([100, 900]), torch.zeros(2, 6)
        )
        return Learner(model, lora, config), lora, batch

    return make


def _copies(lora: Lora) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in lora.parameters()]


@pytest.mark.parametrize("prediction", list(PredictionType))
@pytest.mark.parametrize("weighting", list(LossWeighting))
def test_steps_on_one_batch_lower_its_loss(
    setup: Setup, prediction: PredictionType, weighting: LossWeighting
) -> None:
    learner, _, batch = setup(prediction_type=prediction, loss_weighting=weighting)
    losses = [learner.learn([batch], step=step).loss for step in range(8)]
    assert losses[-1] < losses[0] * 0.97


def test_the_two_predictions_have_different_targets(setup: Setup) -> None:
    losses = {
        setup(prediction_type=prediction, loss_weighting="none")[0].loss(setup()[2]).item()
        for prediction in PredictionType
    }
    assert len(losses) == 2


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])
def test_half_precision_stays_near_fp32_and_trains_fp32_matrices(
    setup: Setup, precision: Precision
) -> None:
    exact = setup()[0].loss(setup()[2]).item()
    learner, lora, batch = setup(precision)
    assert learner.loss(batch).item() == pytest.approx(exact, rel=0.05)
    before = _copies(lora)
    for step in range(3):
        learner.learn([batch], step=step)
    assert all(parameter.dtype is torch.float32 for parameter in lora.parameters())
    changed = [not torch.equal(a, b) for a, b in zip(before, lora.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(
    setup: Setup, precision: Precision
) -> None:
    learner, lora, batch = setup(precision)
    learner.learn([batch], step=0)
    before = _copies(lora)
    batch.latents[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        learner.learn([batch], step=1)
    batch.latents[0, 0, 0, 0] = 0.0
    assert all(torch.equal(a, b) for a, b in zip(before, lora.parameters(), strict=True))
    learner.learn([batch], step=1)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in lora.parameters())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(setup: Setup) -> None:
    learner, lora, batch = setup()
    learner.learn([batch], step=0)
    before = _copies(lora)
    handle = lora.parameters()[0].register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NonFiniteError):
        learner.learn([batch], step=1)
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, lora.parameters(), strict=True))


def test_clipping_clips(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1e-4
    learner, lora, batch = setup(max_grad_norm=limit)
    norms: list[float] = []

    def watch(*_: object) -> None:
        grads = [p.grad for p in lora.parameters() if p.grad is not None]
        norms.append(nn.utils.get_total_norm(grads).item())

    learner._optimizer.register_step_pre_hook(watch)
    learned = learner.learn([batch], step=0)
    assert learned.gradient_norm > 10 * limit
    assert norms == [pytest.approx(limit, rel=0.02)]


def test_the_text_encoder_has_a_rate_of_its_own(setup: Setup) -> None:
    learner, lora, batch = setup(text_encoder_learning_rate=1e-12, weight_decay=0)
    unet, text = lora.parameters(text=False), lora.parameters(text=True)
    before = [parameter.detach().clone() for parameter in (*unet, *text)]
    learner.learn([batch], step=0)
    moved = [
        (parameter - old).abs().max().item()
        for parameter, old in zip((*unet, *text), before, strict=True)
    ]
    assert max(moved[: len(unet)]) > 1e-3
    assert max(moved[len(unet) :]) < 1e-9


def test_checkpointing_changes_no_gradient(setup: Setup) -> None:
    plain, lora, batch = setup()
    saving, other, _ = setup(gradient_checkpointing=True)
    plain.loss(batch).backward()
    saving.loss(batch).backward()
    for one, two in zip(lora.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


def test_a_restored_learner_continues_bit_for_bit(setup: Setup) -> None:
    original, lora, batch = setup(ema_decay=0.9)
    for step in range(3):
        original.learn([batch], step=step)
    copy, other, _ = setup(ema_decay=0.9)
    copy.load(original.state())
    for learner in (original, copy):
        learner.learn([batch], step=3)
    assert all(
        torch.equal(a, b) for a, b in zip(lora.parameters(), other.parameters(), strict=True)
    )
    for name, value in original.weights().items():
        assert torch.equal(value, copy.weights()[name])


def test_gradients_of_several_batches_are_those_of_one_larger_batch(setup: Setup) -> None:
    apart, lora, batch = setup(loss_weighting="none", max_grad_norm=0)
    together, other, _ = setup(loss_weighting="none", max_grad_norm=0)
    added, whole = _gradients(apart, lora), _gradients(together, other)
    apart.learn([_rows(batch, [0]), _rows(batch, [1])], step=0)
    together.learn([batch], step=0)
    assert len(added) == len(whole) > 0
    for one, two in zip(added, whole, strict=True):
        assert (one - two).abs().max() < 0.02 * two.abs().max() + 1e-6  # fp32 in a random UNet


def test_the_text_encoder_is_left_alone_after_its_steps(setup: Setup) -> None:
    learner, lora, batch = setup(text_encoder_steps=1)
    learner.learn([batch], step=0)
    text = [parameter.detach().clone() for parameter in lora.parameters(text=True)]
    unet = [parameter.detach().clone() for parameter in lora.parameters(text=False)]
    learner.learn([batch], step=1)
    assert all(map(torch.equal, text, lora.parameters(text=True)))
    assert not all(map(torch.equal, unet, lora.parameters(text=False)))


def test_a_lower_lr_scale_makes_a_smaller_step(setup: Setup) -> None:
    learner, _, batch = setup()
    full = learner.learn([batch], step=0).learning_rate
    assert learner.learn([batch], step=0, lr_scale=0.5).learning_rate == pytest.approx(full / 2)


def test_masked_areas_and_zero_weights_are_not_learned(setup: Setup) -> None:
    learner, _, batch = setup()
    half = torch.zeros(2, 1, 8, 8)
    half[..., :4] = 1
    masked = replace(batch, mask=half)
    seen = replace(batch, noise=batch.noise.clone(), mask=half)
    loss = learner.loss(masked).item()
    assert loss < learner.loss(batch).item()
    seen.noise[..., 7] += 100  # in the masked half, and far from what the UNet looks at first
    assert learner.loss(replace(batch, weights=torch.zeros(2))).item() == 0
    assert math.isfinite(learner.loss(seen).item())


def test_validation_loss_ignores_masked_areas(setup: Setup) -> None:
    learner, _, batch = setup()
    half = torch.zeros(2, 1, 8, 8)
    half[..., :4] = 1

    class Asked:
        def __init__(self, *batches: Batch) -> None:
            self.batches = lambda: iter(batches)

    whole = learner.held_out_loss(Asked(batch), {}).mean  # type: ignore[arg-type]
    masked = learner.held_out_loss(Asked(replace(batch, mask=half)), {}).mean  # type: ignore[arg-type]
    assert 0.2 * whole < masked < 0.8 * whole


def test_the_images_of_the_bad_batch_are_named(setup: Setup) -> None:
    learner, _, batch = setup()
    good, bad = _rows(batch, [0]), _rows(batch, [1])
    bad.latents[:] = float("inf")
    with pytest.raises(NonFiniteError) as caught:
        learner.learn([good, bad], step=0)
    assert caught.value.images == (1,)


def _gradients(learner: Learner, lora: Lora) -> list[Tensor]:
    """A list that the next step fills with its gradients."""
    found: list[Tensor] = []

    def note(*_: object) -> None:
        found.extend(p.grad.clone() for p in lora.parameters() if p.grad is not None)

    learner._optimizer.register_step_pre_hook(note)
    return found


def _rows(batch: Batch, rows: list[int]) -> Batch:
    return Batch(
        tuple(batch.images[row] for row in rows),
        tuple(batch.captions[row] for row in rows),
        batch.latents[rows],
        batch.noise[rows],
        batch.levels[rows],
        batch.sizes[rows],
    )
