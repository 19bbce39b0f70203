"""One step: batches in, a slightly better adapter out, or an adapter that was not touched."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.core.sampling import predict
from worker.core.training.adapter.lora import Lora
from worker.core.training.config import Optimizer, Precision, PredictionType, TrainConfig
from worker.core.training.data.batches import Batch
from worker.core.training.data.held_out import HeldOutLoss, Questions, summarise
from worker.core.training.data.text import Text
from worker.core.training.loss import NoiseSchedule, averaged, errors_of, level_weights
from worker.core.training.optim import (
    MovingAverage,
    build_optimizer,
    lr_factor,
    schedule_free_averages,
    set_learning_rate,
    swapped,
)
from worker.core.training.precision import autocast

OWN = ("base_lr", "weight_decay")  # of a group of parameters; the rest is the optimizer's state


class NonFiniteError(Exception):
    """The loss or the gradient of these pictures is no number to learn from."""

    def __init__(self, images: Sequence[int]) -> None:
        super().__init__()
        self.images = tuple(images)


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

    def learn(self, batches: Sequence[Batch], *, step: int, slower: float = 1.0) -> Learned:
        """Take one step after `step` finished ones, with the gradients of all batches together.

        `slower` is one more factor of the learning rate. Raises NonFiniteError, before anything
        changed, when a loss or the gradient is not finite.
        """
        rate = set_learning_rate(self._optimizer, slower * lr_factor(step, self._config))
        self._let_text_learn(step)
        losses = []
        for batch in batches:
            loss = self.loss(batch)
            self._scaler.scale(loss / len(batches)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self._scaler.unscale_(self._optimizer)
        limit = self._config.max_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self._lora.parameters(), limit)
        *values, norm_value = torch.stack([*losses, norm]).tolist()
        if not self._is_sound(values, norm_value):
            self._optimizer.zero_grad()
            self._scaler.update()  # else it refuses to unscale the gradients of the next try
            raise NonFiniteError(_suspects(batches, values))
        self._scaler.step(self._optimizer)  # in fp16 it leaves out a step that overflowed
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.update(step)
        return Learned(sum(values) / len(values), norm_value, rate)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch under the adapter as it is, with gradients."""
        model, device = self._model, self._model.device
        predicted, target = self._answer(batch)
        weights = level_weights(
            model.schedule.snr(batch.timesteps.to(device)), self._config, model.prediction
        )
        if batch.weights is not None:
            own = batch.weights.to(device)
            weights = own if weights is None else weights * own
        mask = None if batch.mask is None else batch.mask.to(device)
        return averaged(errors_of(predicted, target, self._config), weights, mask)

    @torch.no_grad()
    def held_out_loss(self, questions: Questions) -> HeldOutLoss:
        """How well pictures that are not trained on are predicted by the adapter as it is."""
        errors: list[tuple[int, float]] = []
        for batch in questions.batches():
            predicted, target = self._answer(batch)
            squared = (predicted - target).square()
            if batch.mask is not None:
                squared = squared * batch.mask.to(squared.device)
            errors += zip(batch.images, squared.mean(dim=(1, 2, 3)).tolist(), strict=True)
        return summarise(errors)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The adapter as `weights` would make it, for as long as the context lasts."""
        with swapped(self._lora.named_parameters(), self.weights()):
            yield

    def weights(self) -> dict[str, Tensor]:
        """The matrices that make the adapter: the average's when one is kept."""
        if self._average is not None:
            return self._average.weights
        parameters = self._lora.named_parameters()
        return schedule_free_averages(self._optimizer, parameters) or {
            name: value.detach() for name, value in parameters.items()
        }

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for the batches."""
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
        """Go back to a state, maybe of another training; rates and decay stay this config's."""
        for name, parameter in self._lora.named_parameters().items():
            parameter.copy_(state["parameters"][name])
        self._load_optimizer(state)
        if self._scaler.is_enabled() and state["scaler"]:  # empty where it was not fp16
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load(state["average"] or state["parameters"])

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        """Take up its state; AdamW's means nothing to AdamW in 8 bit, which begins anew."""
        mine = self._config.optimizer
        of = Optimizer(state.get("optimizer_of", mine))
        if (of, mine) == (Optimizer.ADAMW, Optimizer.ADAMW_8BIT):
            return
        if of is not mine:
            raise ValueError(f"This state is of {of}.")
        own = [{name: group[name] for name in OWN} for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it keeps the tensors
        for group, values in zip(self._optimizer.param_groups, own, strict=True):
            group |= values

    def _answer(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the UNet predicts for a batch, and what it should have: (b, c, h, w), fp32."""
        model = self._model
        schedule, device = model.schedule, model.device
        latents, noise = batch.latents.to(device), batch.noise.to(device)
        timesteps, time_ids = batch.timesteps.to(device), batch.time_ids.to(device)
        with autocast(model.precision, device=device):
            text = model.text(batch.captions)
            noised = schedule.noised(latents, noise, timesteps)
            predicted = predict(model.unet, noised, timesteps, text, time_ids)
        if model.prediction is PredictionType.V_PREDICTION:
            return predicted, schedule.velocity(latents, noise, timesteps)
        return predicted, noise

    def _let_text_learn(self, step: int) -> None:
        """Switch the text encoders' matrices off once they have learned their share of steps."""
        if self._config.text_encoder_steps is None:
            return
        learns = step < self._config.text_encoder_steps
        for parameter in self._lora.parameters(text=True):
            parameter.requires_grad_(learns)

    def _is_sound(self, losses: Sequence[float], norm: float) -> bool:
        """Finite; in fp16 a gradient may overflow as long as its scale can still be lowered."""
        overflow_allowed = self._scaler.is_enabled() and self._scaler.get_scale() > 1
        finite = all(math.isfinite(loss) for loss in losses)
        return finite and (math.isfinite(norm) or overflow_allowed)


def _suspects(batches: Sequence[Batch], losses: Sequence[float]) -> list[int]:
    """The pictures of the batches whose loss is not finite; all, when only the gradient is not."""
    pairs = list(zip(batches, losses, strict=True))
    bad = [batch for batch, loss in pairs if not math.isfinite(loss)] or list(batches)
    return sorted({image for batch in bad for image in batch.images})
