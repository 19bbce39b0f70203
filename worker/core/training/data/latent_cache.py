"""Pictures as latents, encoded once and kept on disk for later runs.

A file of the cache is named by what its content depends on: the picture's hash, the VAE's weights
and the size; so it is never stale, and is simply made again when it is damaged.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worker.core.training.data.buckets import Fit, Size, apply, fit
from worker.core.training.data.images import TrainingImage, open_with_opacity, picture_size
from worker.core.training.data.tensor_cache import keep, read_kept

LAYOUT = 2
VALUES_HASHED_PER_TENSOR = 4_096
PIXELS_ENCODED_AT_ONCE = 1_048_576
PICTURES_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Latent:
    """The VAE's view of a picture, unscaled: the mean and deviation of its posterior (c, h, w).

    `std` is None for a VAE that gives plain latents (AutoencoderTiny); `opacity` (1, h, w), 0 to 1,
    is None for a picture that is opaque all over.
    """

    mean: Tensor
    std: Tensor | None
    opacity: Tensor | None = None


@dataclass(frozen=True, slots=True)
class EncodedBucket:
    """All pictures of one size, ready for batches; v is 2 when mirrored latents are kept, else 1.

    `mean`, `std`: (n, v, c, h, w), already multiplied with the VAE's scaling factor.
    `time_ids`: (n, 6), SDXL's size conditioning: source, crop and target as (height, width) pairs.
    `opacity`: (n, v, 1, h, w), 0 to 1; None when every picture is opaque all over.
    """

    size: Size
    images: tuple[int, ...]
    mean: Tensor
    std: Tensor | None
    time_ids: Tensor
    opacity: Tensor | None = None

    def draw(
        self, rows: Sequence[int], generator: torch.Generator, *, flip: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Latents (b, c, h, w) of these rows, and how opaque their pictures are (b, 1, h, w).

        A fresh sample of each posterior, maybe mirrored.
        """
        variants = torch.randint(2, (len(rows),), generator=generator) if flip else 0
        index = torch.tensor(rows)
        mean = self.mean[index, variants]
        opacity = None if self.opacity is None else self.opacity[index, variants]
        if self.std is None:
            return mean, opacity
        chance = torch.randn(mean.shape, generator=generator)
        return mean + self.std[index, variants] * chance, opacity


def encode_images(
    images: Sequence[TrainingImage],
    vae: Any,
    *,
    resolution: int,
    flip: bool,
    folder: Path | None,
    squares: bool = False,
    keep_going: Callable[[], None],
) -> list[EncodedBucket]:
    """Give every picture's latents by bucket, from the cache where it has them.

    Pictures that the cache knows are not even opened, except for their header's size. `squares`
    cuts all of them to squares. Of pictures that are never mirrored both variants are the plain
    one. `keep_going` is called between pictures and may raise. Raises DatasetError for a picture
    that cannot be read.
    """
    store = LatentStore(folder, vae)
    fits = []
    for image in images:
        keep_going()
        fits.append(fit(Size(*picture_size(image)), resolution, squares=squares))
    by_size: dict[Size, list[int]] = {}
    for index, fitted in enumerate(fits):
        by_size.setdefault(fitted.bucket, []).append(index)
    result = []
    for size in sorted(by_size):
        rows = by_size[size]
        pairs = [(images[row], fits[row]) for row in rows]
        plain = store.latents(pairs, mirrored=False, keep_going=keep_going)
        mirrored = _mirrored(store, pairs, plain, keep_going) if flip else None
        result.append(_bucket(size, rows, [fits[row] for row in rows], plain, mirrored, vae))
    return result


def _mirrored(
    store: "LatentStore",
    pairs: Sequence[tuple[TrainingImage, Fit]],
    plain: Sequence[Latent],
    keep_going: Callable[[], None],
) -> list[Latent]:
    """The mirrored latents of pictures that may be mirrored, the plain ones of the others."""
    rows = [row for row, (image, _) in enumerate(pairs) if not image.never_flip]
    chosen = [pairs[row] for row in rows]
    latents = list(plain)
    made = store.latents(chosen, mirrored=True, keep_going=keep_going) if chosen else []
    for row, latent in zip(rows, made, strict=True):
        latents[row] = latent
    return latents


class LatentStore:
    """Latents of pictures under one VAE: read from the folder, or encoded and written there."""

    def __init__(self, folder: Path | None, vae: Any) -> None:
        self._vae = vae
        self._folder = folder / f"vae-{vae_fingerprint(vae)[:16]}" if folder else None

    def latents(
        self,
        pairs: Sequence[tuple[TrainingImage, Fit]],
        *,
        mirrored: bool,
        keep_going: Callable[[], None],
    ) -> list[Latent]:
        """Give the latents of pictures of one bucket, in their order."""
        found: dict[int, Latent] = {}
        for index, (image, fitted) in enumerate(pairs):
            keep_going()
            latent = self._read(self._path(image, fitted, mirrored))
            if latent is not None:
                found[index] = latent
        missing = [index for index in range(len(pairs)) if index not in found]
        pixels = _ahead(lambda index: _pixels(*pairs[index], mirrored=mirrored), missing)
        for chunk in _chunks(missing, pairs[0][1].bucket, device=self._vae.device):
            keep_going()
            batch = [next(pixels) for _ in chunk]
            encoded = encode(self._vae, torch.stack([seen.rgb for seen in batch]))
            for index, seen, latent in zip(chunk, batch, encoded, strict=True):
                if seen.opacity is not None:
                    opacity = _shrunk(seen.opacity, latent.mean.shape[-2:])
                    latent = replace(latent, opacity=opacity)
                found[index] = latent
                self._write(self._path(*pairs[index], mirrored), latent)
        return [found[index] for index in range(len(pairs))]

    def _path(self, image: TrainingImage, fitted: Fit, mirrored: bool) -> Path | None:
        if self._folder is None:
            return None
        side = "-mirrored" if mirrored else ""
        name = f"{image.sha256}-{fitted.bucket.width}x{fitted.bucket.height}{side}-{LAYOUT}"
        return self._folder / name[:2] / f"{name}.safetensors"

    def _read(self, path: Path | None) -> Latent | None:
        """The latent of a file; None when it is not there or damaged, so that it is made again."""
        tensors = read_kept(path, needed="mean")
        if tensors is None:
            return None
        return Latent(tensors["mean"], tensors.get("std"), tensors.get("opacity"))

    def _write(self, path: Path | None, latent: Latent) -> None:
        keep(path, {"mean": latent.mean, "std": latent.std, "opacity": latent.opacity})


@torch.inference_mode()
def encode(vae: Any, pixels: Tensor) -> list[Latent]:
    """Latents of pictures (b, 3, height, width) in [-1, 1], one by one and on the CPU in fp32."""
    weight = next(vae.parameters())
    encoded = vae.encode(pixels.to(weight.device, weight.dtype))
    if not hasattr(encoded, "latent_dist"):
        return [Latent(mean, None) for mean in _apart(encoded.latents)]
    posterior = encoded.latent_dist
    pairs = zip(_apart(posterior.mean), _apart(posterior.std), strict=True)
    return [Latent(mean, std) for mean, std in pairs]


def _apart(tensor: Tensor) -> list[Tensor]:
    """Each picture's part in fp32, in memory of its own."""
    return [part.float().cpu().clone(memory_format=torch.contiguous_format) for part in tensor]


def vae_fingerprint(vae: Any) -> str:
    """A hash of the VAE's config and of values spread over all its weights; cheap at any size."""
    config = {key: value for key, value in dict(vae.config).items() if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        stride = max(1, tensor.numel() // VALUES_HASHED_PER_TENSOR)
        values = tensor.detach().flatten()[::stride].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _Seen:
    """A picture in its bucket: (3, height, width) in [-1, 1]; opacity (1, height, width) if any."""

    rgb: Tensor
    opacity: Tensor | None


def _pixels(image: TrainingImage, fitted: Fit, *, mirrored: bool) -> _Seen:
    picture, opacity = open_with_opacity(image)
    values = np.asarray(apply(fitted, picture), dtype=np.float32)
    rgb = torch.from_numpy(values / 127.5 - 1.0).permute(2, 0, 1)
    alpha = None
    if opacity is not None:
        levels = np.asarray(apply(fitted, opacity), dtype=np.float32)
        alpha = torch.from_numpy(levels / 255.0)[None]
    if mirrored:
        return _Seen(rgb.flip(-1), None if alpha is None else alpha.flip(-1))
    return _Seen(rgb, alpha)


def _shrunk(opacity: Tensor, size: torch.Size) -> Tensor:
    """Opacity (1, height, width) at the size of latents, by area."""
    return F.interpolate(opacity[None], tuple(size), mode="area")[0]


def _ahead(make: Callable[[int], _Seen], rows: Sequence[int]) -> Iterator[_Seen]:
    """`make` of each row in turn, made on another thread while the caller encodes."""
    with ThreadPoolExecutor(1, thread_name_prefix="pictures") as thread:
        coming: deque[Future[_Seen]] = deque()
        for row in rows:
            coming.append(thread.submit(make, row))
            if len(coming) > PICTURES_AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _chunks(rows: Sequence[int], size: Size, *, device: torch.device) -> Iterator[Sequence[int]]:
    """Pictures to encode together.

    One by one on a CPU: there the last bits of a latent depend on the size of its batch, and a run
    that goes on elsewhere, with another part of the cache, must find the very same latents.
    """
    length = max(1, PIXELS_ENCODED_AT_ONCE // (size.width * size.height))
    if device.type == "cpu":
        length = 1
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


def _bucket(
    size: Size,
    rows: Sequence[int],
    fits: Sequence[Fit],
    plain: Sequence[Latent],
    mirrored: Sequence[Latent] | None,
    vae: Any,
) -> EncodedBucket:
    variants = [plain] if mirrored is None else [plain, mirrored]
    factor = float(vae.config.scaling_factor)
    shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    def stacked(values: Callable[[Latent], Tensor]) -> Tensor:
        return torch.stack(
            [torch.stack([values(latent) for latent in side]) for side in variants], dim=1
        )

    std = None
    if plain[0].std is not None:
        std = stacked(lambda latent: latent.mean if latent.std is None else latent.std) * factor
    mean = (stacked(lambda latent: latent.mean) - shift) * factor
    opacity = None
    if any(latent.opacity is not None for latent in plain):
        opacity = stacked(_opacity)
    return EncodedBucket(size, tuple(rows), mean, std, _time_ids(fits), opacity)


def _opacity(latent: Latent) -> Tensor:
    """(1, h, w) of any latent."""
    if latent.opacity is not None:
        return latent.opacity
    return torch.ones(1, *latent.mean.shape[-2:])


def _time_ids(fits: Sequence[Fit]) -> Tensor:
    return torch.tensor(
        [
            [
                fitted.source.height,
                fitted.source.width,
                fitted.top,
                fitted.left,
                fitted.bucket.height,
                fitted.bucket.width,
            ]
            for fitted in fits
        ],
        dtype=torch.float32,
    )
