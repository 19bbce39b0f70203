"""One training step: it updates the adapter, or leaves it unchanged."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.core.families.network import Network, Process
from worker.core.training.adapter.lora import Lora
from worker.core.training.config import Optimizer, Precision, TrainConfig
from worker.core.training.data.batches import Batch
from worker.core.training.data.text import CaptionEncoder
from worker.core.training.data.validation import (
    PredictionError,
    ValidationLoss,
    ValidationSet,
    summarize_errors,
)
from worker.core.training.loss import elementwise_error, mean_loss
from worker.core.training.optim import (
    MovingAverage,
    build_optimizer,
    lr_factor,
    schedule_free_averages,
    set_learning_rate,
    swap_weights,
)
from worker.core.training.precision import autocast

CONFIG_GROUP_KEYS = (
    "base_lr",
    "weight_decay",
)  # set by the config for a parameter group; the rest is the optimizer's state


class NonFiniteError(Exception):
    """The loss or the gradient of these images is NaN or infinite."""

    def __init__(self, images: Sequence[int]) -> None:
        super().__init__()
        self.images = tuple(images)


@dataclass(frozen=True, slots=True)
class Model:
    """The parts of a prediction: the denoiser, its text encoder, and the noise process."""

    network: Network
    denoiser: Any
    text: CaptionEncoder
    process: Process
    precision: Precision
    device: str


@dataclass(frozen=True, slots=True)
class StepResult:
    """The numbers of one step."""

    loss: float
    gradient_norm: float
    learning_rate: float


class Learner:
    """The adapter with its optimizer and moving average; only `learn` updates it."""

    def __init__(self, model: Model, lora: Lora, config: TrainConfig) -> None:
        self._model = model
        self._lora = lora
        self._config = config
        self._optimizer = build_optimizer(lora, config)
        self._scaler = torch.amp.GradScaler(
            torch.device(model.device).type, enabled=model.precision is Precision.FP16
        )
        self._average: MovingAverage | None = None
        if config.ema_decay is not None:
            self._average = MovingAverage(lora.named_parameters(), decay=config.ema_decay)

    def learn(
        self,
        batches: Sequence[Batch],
        *,
        step: int,
        lr_scale: float = 1.0,
        lengths: Sequence[tuple[int, int]] = (),
    ) -> StepResult:
        """Take the step after `step` finished ones, with the averaged gradients of all batches.

        `lr_scale` is an extra factor of the learning rate, `lengths` as for `lr_factor`. Raises
        NonFiniteError, before anything changed, when a loss or the gradient is not finite.
        """
        factor = lr_factor(step, self._config, lengths)
        rate = set_learning_rate(self._optimizer, lr_scale * factor)
        self._freeze_trained_text(step)
        losses = []
        for batch in batches:
            loss = self.loss(batch)
            self._scaler.scale(loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self._scaler.unscale_(self._optimizer)
        limit = self._config.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self._lora.parameters(), limit)
        *values, norm_value = torch.stack([*losses, norm]).tolist()
        if not self._is_finite(values, norm_value):
            self._optimizer.zero_grad()
            self._scaler.update()  # else the next unscale_ raises
            raise NonFiniteError(_non_finite_images(batches, values))
        self._scaler.step(self._optimizer)  # in fp16 it skips a step that overflowed
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.update(step)
        return StepResult(sum(values) / len(values), norm_value, rate)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch with the current adapter, with gradients."""
        model, device = self._model, self._model.device
        predicted, target = self._predict_with_target(batch)
        weights = model.process.weights(batch.levels.to(device))
        if batch.weights is not None:
            own = batch.weights.to(device)
            weights = own if weights is None else weights * own
        mask = None if batch.mask is None else batch.mask.to(device)
        return mean_loss(elementwise_error(predicted, target, self._config), weights, mask)

    @torch.no_grad()
    def prediction_errors(self, validation: ValidationSet) -> list[PredictionError]:
        """The prediction errors of the current adapter on the images of a set."""
        found: list[PredictionError] = []
        for batch in validation.batches():
            predicted, target = self._predict_with_target(batch)
            mask = 1.0 if batch.mask is None else batch.mask.to(target.device)
            errors, guesses = (
                (difference.square() * mask).mean(dim=(1, 2, 3)).tolist()
                for difference in (predicted - target, target)
            )
            levels = batch.levels.tolist()
            found += map(PredictionError, batch.images, levels, errors, guesses)
        return found

    def held_out_loss(
        self, validation: ValidationSet, before: Mapping[int, float]
    ) -> ValidationLoss:
        """The validation loss: how well the current adapter predicts held-out images.

        `before`: the loss of each at the measurement before, for the interval of the change.
        """
        return summarize_errors(self.prediction_errors(validation), before)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use `weights()` as the adapter while the context lasts."""
        with swap_weights(self._lora.named_parameters(), self.weights()):
            yield

    def weights(self) -> dict[str, Tensor]:
        """The adapter's matrices; the moving average when one is kept."""
        if self._average is not None:
            return self._average.weights
        parameters = self._lora.named_parameters()
        return schedule_free_averages(self._optimizer, parameters) or {
            name: value.detach() for name, value in parameters.items()
        }

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, except the batches."""
        parameters = self._lora.named_parameters()
        return {
            "parameters": {name: value.detach().cpu() for name, value in parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "optimizer_of": self._config.optimizer.value,
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else self._average.weights,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Load a state, maybe of another training; rates and decay stay this config's."""
        for name, parameter in self._lora.named_parameters().items():
            parameter.copy_(state["parameters"][name])
        self._load_optimizer(state)
        if self._scaler.is_enabled() and state["scaler"]:  # empty when it was not fp16
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"] or state["parameters"])

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Load the optimizer's state; AdamW 8-bit cannot use AdamW's and starts fresh."""
        mine = self._config.optimizer
        of = Optimizer(state.get("optimizer_of", mine))
        if (of, mine) == (Optimizer.ADAMW, Optimizer.ADAMW_8BIT):
            return
        if of is not mine:
            raise ValueError(f"This state belongs to {of}, not {mine}.")
        own = [
            {name: group[name] for name in CONFIG_GROUP_KEYS}
            for group in self._optimizer.param_groups
        ]
        self._optimizer.load_state_dict(
            copy.deepcopy(state["optimizer"])
        )  # load_state_dict keeps references to the tensors
        for group, values in zip(self._optimizer.param_groups, own, strict=True):
            group |= values

    def _predict_with_target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The denoiser's prediction for a batch and its target: (b, c, h, w), fp32."""
        model = self._model
        network, process, device = model.network, model.process, model.device
        latents, noise = batch.latents.to(device), batch.noise.to(device)
        levels, sizes = batch.levels.to(device), batch.sizes.to(device)
        with autocast(model.precision, device=device):
            text = model.text(batch.captions)
            noised = process.add_noise(latents, noise, levels)
            predicted = network.predict(model.denoiser, noised, levels, text, sizes)
        return predicted, process.target(latents, noise, levels)

    def _freeze_trained_text(self, step: int) -> None:
        """Freeze the text encoders' matrices after their share of the steps."""
        if self._config.text_encoder_steps is None:
            return
        is_trained = step < self._config.text_encoder_steps
        for parameter in self._lora.parameters(text=True):
            parameter.requires_grad_(is_trained)

    def _is_finite(self, losses: Sequence[float], norm: float) -> bool:
        """True when finite; in fp16 a gradient may overflow while its scale can be lowered."""
        overflow_allowed = self._scaler.is_enabled() and self._scaler.get_scale() > 1
        finite = all(math.isfinite(loss) for loss in losses)
        return finite and (math.isfinite(norm) or overflow_allowed)


def _non_finite_images(batches: Sequence[Batch], losses: Sequence[float]) -> list[int]:
    """Images of the batches with a non-finite loss; all, when only the gradient is not finite."""
    pairs = list(zip(batches, losses, strict=True))
    bad = [batch for batch, loss in pairs if not math.isfinite(loss)] or list(batches)
    return sorted({image for batch in bad for image in batch.images})
