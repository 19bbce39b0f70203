"""One step: a batch in, a slightly better adapter out, or an adapter that was not touched."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.training.batches import Batch
from worker.training.config import Precision, PredictionType, TrainConfig
from worker.training.denoise import predict
from worker.training.lora import Lora
from worker.training.loss import NoiseSchedule, denoising_loss, min_snr_weights
from worker.training.optim import MovingAverage, build_optimizer, lr_factor, set_learning_rate
from worker.training.precision import autocast
from worker.training.text import Text


class NonFiniteError(Exception):
    """The loss or the gradient of a batch is no number to learn from."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a prediction is made of: the UNet, the text before it, and the noise between them."""

    unet: Any
    text: Text
    schedule: NoiseSchedule
    prediction: PredictionType
    precision: Precision
    device: str


@dataclass(frozen=True, slots=True)
class Learned:
    """What a step came to."""

    loss: float
    gradient_norm: float
    learning_rate: float


class Learner:
    """The adapter with its optimizer and average; `learn` is the only thing that changes it."""

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

    def learn(self, batch: Batch, *, step: int) -> Learned:
        """Take one step after `step` finished ones.

        Raises NonFiniteError, before anything changed, when the loss or gradient is not finite.
        """
        rate = set_learning_rate(self._optimizer, lr_factor(step, self._config))
        loss = self.loss(batch)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._lora.parameters(), self._config.max_grad_norm)
        loss_value, norm_value = torch.stack([loss.detach(), norm]).tolist()
        if not self._is_sound(loss_value, norm_value):
            self._optimizer.zero_grad()
            raise NonFiniteError
        self._scaler.step(self._optimizer)  # in fp16 it leaves out a step that overflowed
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.update(step)
        return Learned(loss_value, norm_value, rate)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch under the adapter as it is, with gradients."""
        model = self._model
        schedule, device = model.schedule, model.device
        latents, noise = batch.latents.to(device), batch.noise.to(device)
        timesteps, time_ids = batch.timesteps.to(device), batch.time_ids.to(device)
        with autocast(model.precision, device=device):
            text = model.text(batch.captions)
            noised = schedule.noised(latents, noise, timesteps)
            predicted = predict(model.unet, noised, timesteps, text, time_ids)
        target = noise
        if model.prediction is PredictionType.V_PREDICTION:
            target = schedule.velocity(latents, noise, timesteps)
        weights = None
        if self._config.snr_gamma is not None:
            snr = schedule.snr(timesteps)
            weights = min_snr_weights(snr, self._config.snr_gamma, model.prediction)
        return denoising_loss(predicted, target, weights)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The adapter as `weights` would make it, for as long as the context lasts."""
        if self._average is None:
            yield
            return
        with self._average.in_place():
            yield

    def weights(self) -> dict[str, Tensor]:
        """The matrices that make the adapter: the average's when one is kept."""
        if self._average is not None:
            return self._average.weights
        return {name: value.detach() for name, value in self._lora.named_parameters().items()}

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for the batches."""
        parameters = self._lora.named_parameters()
        return {
            "parameters": {name: value.detach().cpu() for name, value in parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else self._average.weights,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        for name, parameter in self._lora.named_parameters().items():
            parameter.copy_(state["parameters"][name])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it keeps the tensors
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"])

    def _is_sound(self, loss: float, norm: float) -> bool:
        """Finite; in fp16 a gradient may overflow as long as its scale can still be lowered."""
        overflow_allowed = self._scaler.is_enabled() and self._scaler.get_scale() > 1
        return math.isfinite(loss) and (math.isfinite(norm) or overflow_allowed)
