"""Encodes images to latents and caches them on disk for later runs.

A cache file is named after everything its content depends on: the image's hash, the VAE's weights,
the size and the part of the image. So it never gets stale, and a damaged file is simply made again.
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

from worker.core.latents import Latent, encode
from worker.core.training.data.buckets import USUAL_SIDE_STEP, Fit, Size, crop_to_bucket, fit
from worker.core.training.data.images import TrainingImage, image_size, open_with_opacity
from worker.core.training.data.tensor_cache import load_cached_tensors, save_cached_tensors

LAYOUT = 2
VALUES_HASHED_PER_TENSOR = 4_096
PIXELS_ENCODED_AT_ONCE = 1_048_576
PREFETCHED_IMAGES = 8


@dataclass(frozen=True, slots=True)
class EncodedBucket:
    """The encoded images of one size; v is 2 with mirrored latents, else 1.

    `mean`, `std`: (n, v, c, h, w), multiplied by the VAE's scaling factor. `time_ids`: (n, 6),
    SDXL's size conditioning: source, crop and target as (height, width) pairs. `opacity`: (n, v, 1,
    h, w), 0 to 1; None when every image is fully opaque.
    """

    size: Size
    images: tuple[int, ...]
    mean: Tensor
    std: Tensor | None
    time_ids: Tensor
    opacity: Tensor | None = None

    def take(self, rows: Sequence[int]) -> "EncodedBucket":
        """A bucket of only these rows."""
        index = list(rows)
        return EncodedBucket(
            self.size,
            tuple(self.images[row] for row in index),
            self.mean[index],
            None if self.std is None else self.std[index],
            self.time_ids[index],
            None if self.opacity is None else self.opacity[index],
        )

    def sample_latents(
        self, rows: Sequence[int], generator: torch.Generator, *, flip: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Latents (b, c, h, w) of these rows, and the opacity of their images (b, 1, h, w).

        Each is a new sample of the posterior, possibly mirrored.
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
    side_step: int = USUAL_SIDE_STEP,
    check_stop: Callable[[], None],
) -> list[EncodedBucket]:
    """The latents of all images by bucket, from the cache where possible.

    Of cached images only the header is read, for the size. `squares` crops all images to squares,
    `side_step` is that of their buckets. Images that are never mirrored have the plain latents
    twice. `check_stop` is called between images and may raise. Raises DatasetError for an image
    that cannot be read.
    """
    store = LatentStore(folder, vae)
    fits = []
    for image in images:
        check_stop()
        size = Size(*image_size(image))
        fits.append(fit(size, resolution, squares=squares, focus=image.focus, side_step=side_step))
    by_size: dict[Size, list[int]] = {}
    for index, fitted in enumerate(fits):
        by_size.setdefault(fitted.bucket, []).append(index)
    result = []
    for size in sorted(by_size):
        rows = by_size[size]
        pairs = [(images[row], fits[row]) for row in rows]
        plain = store.latents(pairs, mirrored=False, check_stop=check_stop)
        mirrored = _encode_mirrored(store, pairs, plain, check_stop) if flip else None
        result.append(_make_bucket(size, rows, [fits[row] for row in rows], plain, mirrored, vae))
    return result


def _encode_mirrored(
    store: "LatentStore",
    pairs: Sequence[tuple[TrainingImage, Fit]],
    plain: Sequence[Latent],
    check_stop: Callable[[], None],
) -> list[Latent]:
    """The mirrored latents, or the plain ones of images that must not be mirrored."""
    rows = [row for row, (image, _) in enumerate(pairs) if not image.never_flip]
    chosen = [pairs[row] for row in rows]
    latents = list(plain)
    made = store.latents(chosen, mirrored=True, check_stop=check_stop) if chosen else []
    for row, latent in zip(rows, made, strict=True):
        latents[row] = latent
    return latents


class LatentStore:
    """The latents of images for one VAE: read from the folder, or encoded and written there."""

    def __init__(self, folder: Path | None, vae: Any) -> None:
        self._vae = vae
        self._folder = folder / f"vae-{vae_fingerprint(vae)[:16]}" if folder else None

    def latents(
        self,
        pairs: Sequence[tuple[TrainingImage, Fit]],
        *,
        mirrored: bool,
        check_stop: Callable[[], None],
    ) -> list[Latent]:
        """The latents of images of one bucket, in order."""
        found: dict[int, Latent] = {}
        for index, (image, fitted) in enumerate(pairs):
            check_stop()
            latent = self._read_latent(self._latent_path(image, fitted, mirrored))
            if latent is not None:
                found[index] = latent
        missing = [index for index in range(len(pairs)) if index not in found]
        pixels = _prefetch_items(
            lambda index: _read_pixels(*pairs[index], mirrored=mirrored), missing
        )
        for chunk in _split_chunks(missing, pairs[0][1].bucket, device=self._vae.device):
            check_stop()
            batch = [next(pixels) for _ in chunk]
            encoded = encode(self._vae, torch.stack([seen.rgb for seen in batch]))
            for index, seen, latent in zip(chunk, batch, encoded, strict=True):
                if seen.opacity is not None:
                    opacity = _shrink_opacity(seen.opacity, latent.mean.shape[-2:])
                    latent = replace(latent, opacity=opacity)
                found[index] = latent
                self._write_latent(self._latent_path(*pairs[index], mirrored), latent)
        return [found[index] for index in range(len(pairs))]

    def _latent_path(self, image: TrainingImage, fitted: Fit, mirrored: bool) -> Path | None:
        if self._folder is None:
            return None
        part = "" if fitted.is_centered else f"-{fitted.left}-{fitted.top}"
        side = "-mirrored" if mirrored else ""
        size = f"{fitted.bucket.width}x{fitted.bucket.height}"
        name = f"{image.sha256}-{size}{part}{side}-{LAYOUT}"
        return self._folder / name[:2] / f"{name}.safetensors"

    def _read_latent(self, path: Path | None) -> Latent | None:
        """The latent in a file; None when it is missing or damaged."""
        tensors = load_cached_tensors(path, needed="mean")
        if tensors is None:
            return None
        return Latent(tensors["mean"], tensors.get("std"), tensors.get("opacity"))

    def _write_latent(self, path: Path | None, latent: Latent) -> None:
        save_cached_tensors(
            path, {"mean": latent.mean, "std": latent.std, "opacity": latent.opacity}
        )


def vae_fingerprint(vae: Any) -> str:
    """A hash of the VAE's config and of values sampled from all its weights; cheap at any size."""
    config = {key: value for key, value in dict(vae.config).items() if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        stride = max(1, tensor.numel() // VALUES_HASHED_PER_TENSOR)
        values = tensor.detach().flatten()[::stride].float().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class _ImagePixels:
    """An image in its bucket: rgb (3, height, width) in [-1, 1], opacity (1, height, width)."""

    rgb: Tensor
    opacity: Tensor | None


def _read_pixels(image: TrainingImage, fitted: Fit, *, mirrored: bool) -> _ImagePixels:
    opened, opacity = open_with_opacity(image)
    values = np.asarray(crop_to_bucket(fitted, opened), dtype=np.float32)
    rgb = torch.from_numpy(values / 127.5 - 1.0).permute(2, 0, 1)
    alpha = None
    if opacity is not None:
        levels = np.asarray(crop_to_bucket(fitted, opacity), dtype=np.float32)
        alpha = torch.from_numpy(levels / 255.0)[None]
    if mirrored:
        return _ImagePixels(rgb.flip(-1), None if alpha is None else alpha.flip(-1))
    return _ImagePixels(rgb, alpha)


def _shrink_opacity(opacity: Tensor, size: torch.Size) -> Tensor:
    """Opacity (1, height, width) reduced to the size of latents, by area."""
    return F.interpolate(opacity[None], tuple(size), mode="area")[0]


def _prefetch_items(
    make: Callable[[int], _ImagePixels], rows: Sequence[int]
) -> Iterator[_ImagePixels]:
    """The results of `make` in order, computed on another thread while the caller encodes."""
    with ThreadPoolExecutor(1, thread_name_prefix="images") as thread:
        coming: deque[Future[_ImagePixels]] = deque()
        for row in rows:
            coming.append(thread.submit(make, row))
            if len(coming) > PREFETCHED_IMAGES:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _split_chunks(
    rows: Sequence[int], size: Size, *, device: torch.device
) -> Iterator[Sequence[int]]:
    """The rows that are encoded together.

    On a CPU one by one: there the last bits of a latent depend on the batch size, and a run that
    continues elsewhere, with another part of the cache, must get the same latents.
    """
    length = max(1, PIXELS_ENCODED_AT_ONCE // (size.width * size.height))
    if device.type == "cpu":
        length = 1
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


def _make_bucket(
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
        opacity = stacked(_opacity_of)
    return EncodedBucket(size, tuple(rows), mean, std, _time_ids(fits), opacity)


def _opacity_of(latent: Latent) -> Tensor:
    """The opacity (1, h, w) of any latent."""
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
