"""Trains the late blocks and the read-out to name drawings, whatever their look.

New images are drawn all the time. Their passage through the frozen blocks costs more than a step of
the rest, so it is kept, and each image is learned from a few times before a newer one replaces it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.eyes.dense import EDGE, FROZEN_BLOCKS, DenseLate
from tools.eyes.drawings import Artwork
from tools.eyes.imagenet import folded, load_imagenet
from tools.eyes.looks import HELD_OUT, TRAINED, draw_looks, mirrored, on_white, transform
from tools.starter.pace import rate_factor
from worker.core.eyes.efficientnet import WIDTH, EfficientNetLite0, EyesHead
from worker.core.eyes.embedded import SIZE, channels_last, network_input

REPORT_SECONDS = 150.0
CHUNK = 32
DRAWN = 112
EARLY_CHANNELS = 40
SHRINKAGE = 0.1
"""Share of a round covariance in the one that whitens: there are few images for each direction."""


@dataclass(frozen=True)
class EyesRecipe:
    """Sizes, rates and durations; the defaults made the eyes that ship."""

    minutes: float = 25.0
    """CPU time of the training, in minutes of one core."""
    first_images: int = 4096
    """Images of the closed-form start."""
    kept_images: int = 24576
    """Newest images that are learned from, 20 KB each."""
    new_images: int = 512
    """Images that replace the oldest at a time."""
    replays: float = 2.5
    """Mean number of steps that learn from an image."""
    batch: int = 96
    late_rate: float = 7e-4
    head_rate: float = 1.5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    dropout: float = 0.2
    average: float = 0.995
    held_out_drawings: int = 420
    seed: int = 0
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True)
class Split:
    """Which drawings train, and which are held out to judge and calibrate."""

    train: Tensor
    held_out: Tensor
    """Indices of drawings whose name other hands draw in `train`."""


def split_drawings(artwork: Artwork, recipe: EyesRecipe) -> Split:
    """One drawing of every few names that at least four hands draw is held out."""
    generator = torch.Generator().manual_seed(recipe.seed)
    names = torch.tensor([drawing.name for drawing in artwork.drawings])
    hands = names.bincount(minlength=len(artwork.names))
    shuffled = torch.randperm(len(names), generator=generator)
    taken: set[int] = set()
    held_out: list[int] = []
    for index in shuffled.tolist():
        name = int(names[index])
        if len(held_out) < recipe.held_out_drawings and hands[name] >= 4 and name not in taken:
            taken.add(name)
            held_out.append(index)
    chosen = torch.zeros(len(names), dtype=torch.bool)
    chosen[held_out] = True
    return Split(torch.nonzero(~chosen).flatten(), torch.tensor(sorted(held_out), dtype=torch.long))


class ImageStream:
    """Endless images of the training drawings in random looks, behind the frozen blocks."""

    def __init__(self, artwork: Artwork, pixels: Tensor, indices: Tensor) -> None:
        names = torch.tensor([drawing.name for drawing in artwork.drawings])
        self.names, self.pixels, self.indices = names, pixels, indices
        count = names[indices].bincount(minlength=len(artwork.names)).float()
        self.weights = count[names[indices]].rsqrt()
        directed = ("left", "right", "moon", "arrow", "clockwise", "italic", "music", "quarter")
        self.mirrors = torch.tensor(
            [not any(word in name for word in directed) for name in artwork.names]
        )

    def draw(self, count: int, looks: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Images, (n, 3, 128, 128) in [0, 1], and their names."""
        chosen = self.indices[torch.multinomial(self.weights, count, replacement=True)]
        return self.draw_these(chosen, looks), self.names[chosen]

    def draw_these(self, chosen: Tensor, looks: Sequence[str]) -> Tensor:
        drawings = self.pixels[chosen].float() / 255
        drawings = transform(mirrored(drawings, self.mirrors[self.names[chosen]]), SIZE)
        return draw_looks(drawings, looks)


def reduced(pixels: Tensor) -> Tensor:
    """Rendered drawings, uint8, as (n, 4, 128, 128) in [0, 1], 112 px wide as in the base."""
    small = F.interpolate(pixels.float() / 255, size=(DRAWN, DRAWN), mode="area")
    return F.pad(small, ((SIZE - DRAWN) // 2,) * 4)


@torch.no_grad()
def early_features(network: EfficientNetLite0, images: Tensor, dtype: torch.dtype) -> Tensor:
    """The output of the frozen blocks, (n, 40, 256), for images in [0, 1]."""
    hidden: Tensor = network_input(images).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        hidden = network.stem(hidden)
        for block in network.blocks[:FROZEN_BLOCKS]:
            hidden = block(hidden)
    return hidden.to(dtype).flatten(2).contiguous()


def late_features(late: DenseLate, early: Tensor) -> Tensor:
    """(n, 40, 256) to (n, 1280)."""
    features: Tensor = late(early.permute(1, 2, 0).contiguous()).T
    return features


class Trainer:
    """The state of one training; it can be saved and resumed."""

    def __init__(self, artwork: Artwork, pixels: Tensor, recipe: EyesRecipe) -> None:
        torch.manual_seed(recipe.seed)
        self.artwork, self.recipe = artwork, recipe
        self.split = split_drawings(artwork, recipe)
        self.stream = ImageStream(artwork, pixels, self.split.train)
        self.network = channels_last(folded(load_imagenet()))
        self.head = EyesHead(len(artwork.names))
        self.log_scale = nn.Parameter(torch.tensor(math.log(16.0)))
        self.late = DenseLate(self.network, recipe.dtype)
        self.optimizer = self._make_optimizer()
        self.average_network = copy.deepcopy(self.network)
        self.average_head = copy.deepcopy(self.head)
        self.average = nn.ModuleList([self.average_network, self.average_head])
        self.seconds, self.steps = 0.0, 0
        self.losses: list[float] = []
        kept = recipe.kept_images
        self.early = torch.empty(kept, EARLY_CHANNELS, EDGE * EDGE, dtype=recipe.dtype)
        self.labels = torch.empty(kept, dtype=torch.long)
        self.drawn = 0

    def _make_optimizer(self) -> torch.optim.AdamW:
        recipe = self.recipe
        late = [*self.network.blocks[FROZEN_BLOCKS:].parameters(), *self.network.head.parameters()]
        groups: list[dict[str, Any]] = [
            {"params": [w for w in late if w.ndim > 1], "lr": recipe.late_rate},
            {"params": [w for w in late if w.ndim == 1], "lr": recipe.late_rate, "weight_decay": 0},
            {"params": list(self.head.parameters()), "lr": recipe.head_rate},
            {"params": [self.log_scale], "lr": recipe.head_rate, "weight_decay": 0},
        ]
        for group in groups:
            group["initial_lr"] = group["lr"]
        self.trained = [weight for group in groups for weight in group["params"]]
        return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=recipe.weight_decay)

    def run(self, checkpoint: Path | None = None) -> None:
        """Train until the minutes are spent; a checkpoint is written at every report."""
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        limit = 60 * self.recipe.minutes
        before, reported = time.process_time() - self.seconds, -math.inf
        if self.steps == 0 or self.seconds < limit:
            self._draw_new(self.recipe.first_images)
        if self.steps == 0:
            self._start_closed_form()
        rounds = round(self.recipe.new_images * self.recipe.replays / self.recipe.batch)
        while self.seconds < limit:
            if self.seconds - reported >= REPORT_SECONDS:
                self.report()
                reported = self.seconds
                if checkpoint is not None:
                    self.save(checkpoint)
            for _ in range(rounds):
                self._step(min(1.0, self.seconds / limit))
            self._draw_new(self.recipe.new_images)
            self.seconds = time.process_time() - before
        self.report()
        if checkpoint is not None:
            self.save(checkpoint)

    def _draw_new(self, count: int) -> None:
        """Draw images and put them in the place of the oldest."""
        for _ in range(math.ceil(count / CHUNK)):
            images, names = self.stream.draw(CHUNK, TRAINED)
            where = (self.drawn + torch.arange(CHUNK)) % len(self.labels)
            self.early[where] = early_features(self.network, images, self.recipe.dtype)
            self.labels[where] = names
            self.drawn += CHUNK

    @torch.no_grad()
    def _start_closed_form(self) -> None:
        """Begin with the read-out that needs no steps: whitened class means."""
        count = min(self.drawn, len(self.labels))
        features = torch.cat(
            [late_features(self.late, part) for part in torch.split(self.early[:count], CHUNK)]
        )
        fit_closed_form(self.head, features, self.labels[:count])
        self.average_head.load_state_dict(self.head.state_dict())

    def _step(self, share: float) -> None:
        recipe = self.recipe
        chosen = torch.randint(min(self.drawn, len(self.labels)), (recipe.batch,))
        features = late_features(self.late, self.early[chosen])
        cosines = self.head(F.dropout(features, recipe.dropout))
        loss = F.cross_entropy(
            cosines * self.log_scale.exp(), self.labels[chosen], label_smoothing=recipe.smoothing
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.trained, 2.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate_factor(share)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        self._follow()
        if not math.isfinite(value := loss.item()):
            raise FloatingPointError(f"The loss of step {self.steps} is {value}. Lower the rates.")
        self.losses.append(value)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights a little toward the trained ones."""
        now: list[Tensor] = [*self.network.parameters(), *self.head.parameters()]
        share = 1 - min(self.recipe.average, (self.steps + 1) / (self.steps + 10))
        torch._foreach_lerp_(list(self.average.parameters()), now, share)

    def report(self) -> None:
        """Print the loss, and how many of the held-out drawings get their name."""
        scores = " ".join(
            f"{title} {first:.0%}/{five:.0%}" for title, first, five in self.held_out_scores()
        )
        loss = sum(self.losses[-100:]) / max(1, len(self.losses[-100:]))
        print(
            f"{self.seconds / 60:5.1f} min, step {self.steps}, {self.drawn} images, "
            f"loss {loss:.3f}, scale {self.log_scale.exp().item():.1f}; held out: {scores}",
            flush=True,
        )

    @torch.no_grad()
    def held_out_scores(self) -> list[tuple[str, float, float]]:
        """Top 1 and top 5 of the averaged weights on drawings that did not train."""
        network, head, dtype = self.average_network, self.average_head, self.recipe.dtype
        late = DenseLate(network, dtype)
        chosen = self.split.held_out
        if not len(chosen):
            return []
        labels = self.stream.names[chosen]
        scores = []
        with torch.random.fork_rng():
            torch.manual_seed(1)
            views = {
                "white": on_white(reduced(self.stream.pixels[chosen])),
                "trained looks": self.stream.draw_these(chosen, TRAINED),
                "held-out looks": self.stream.draw_these(chosen, HELD_OUT),
            }
        for title, images in views.items():
            early = (early_features(network, part, dtype) for part in torch.split(images, CHUNK))
            features = torch.cat([late_features(late, part) for part in early])
            ranked = head(features).topk(min(5, len(self.artwork.names)), dim=1).indices
            right = ranked == labels[:, None]
            scores.append(
                (title, right[:, 0].float().mean().item(), right.any(1).float().mean().item())
            )
        return scores

    def save(self, path: Path) -> None:
        partial = path.with_suffix(".tmp")
        torch.save(
            {
                "network": self.network.state_dict(),
                "head": self.head.state_dict(),
                "log_scale": self.log_scale.detach(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "seconds": self.seconds,
                "steps": self.steps,
            },
            partial,
        )
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.head.load_state_dict(state["head"])
        with torch.no_grad():
            self.log_scale.copy_(state["log_scale"])
        self.average.load_state_dict(state["average"])
        groups = [group["initial_lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self.optimizer.param_groups, groups, strict=True):
            group["initial_lr"] = rate  # of this recipe, not of the interrupted one
        self.seconds, self.steps = state["seconds"], state["steps"]
        torch.manual_seed(self.recipe.seed + self.steps)
        print(f"resumed after {self.seconds / 60:.1f} minutes, step {self.steps}", flush=True)


@torch.no_grad()
def fit_closed_form(head: EyesHead, features: Tensor, labels: Tensor) -> None:
    """Set the read-out from features, (n, 1280), and their names.

    Features are whitened by their deviation within a name, then projected to the directions in
    which the means of the names differ most (linear discriminant analysis).
    """
    center = features.mean(dim=0)
    centered = (features - center).double()
    count = labels.bincount(minlength=len(head.names)).double().clamp(min=1)
    sums = torch.zeros(len(head.names), centered.shape[1], dtype=torch.double)
    means = sums.index_add(0, labels, centered) / count[:, None]
    inner = centered - means[labels]
    covariance = inner.T @ inner / len(inner)
    level = covariance.diagonal().mean()
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance)
    whitening = vectors * values.rsqrt()
    _, strengths, directions = torch.linalg.svd(means @ whitening, full_matrices=False)
    width = min(WIDTH, len(strengths))
    projection = (whitening @ directions[:width].T).float()
    head.project.weight.zero_()
    head.project.weight[:width] = projection.T
    head.project.bias.copy_(-(head.project.weight @ center))
    points = torch.zeros_like(head.names)
    points[:, :width] = means.float() @ projection
    empty = points.norm(dim=1) == 0
    points[empty] = torch.randn_like(points[empty])
    head.names.copy_(torch.nn.functional.normalize(points, dim=1))
