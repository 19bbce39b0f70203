from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.worker.training.conftest import MakeBase
from worker.core.training.data import latent_cache as cache_module
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket, encode_images, vae_fingerprint
from worker.core.training.errors import DatasetError


def _encode(
    images: Sequence[TrainingImage], vae: Any, folder: Path | None = None, *, flip: bool = False
) -> list[EncodedBucket]:
    return encode_images(
        images, vae, resolution=64, flip=flip, folder=folder, check_stop=lambda: None
    )


@pytest.fixture
def encoder_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pictures of each call of the VAE's encoder."""
    calls: list[int] = []
    original = cache_module.encode

    def counted(vae: Any, pixels: torch.Tensor) -> Any:
        calls.append(len(pixels))
        return original(vae, pixels)

    monkeypatch.setattr(cache_module, "encode", counted)
    return calls


def test_pictures_of_one_shape_share_a_bucket(
    images: list[TrainingImage], starter_base: MakeBase
) -> None:
    vae = starter_base().vae
    channels = vae.config.latent_channels
    buckets = _encode(images, vae)
    assert sorted(sorted(bucket.images) for bucket in buckets) == [[0, 1], [2]]
    for bucket in buckets:
        shape = (len(bucket.images), 1, channels, bucket.size.height // 8, bucket.size.width // 8)
        assert bucket.mean.shape == shape


def test_latents_are_those_of_the_vae_in_its_own_scale(
    images: list[TrainingImage], starter_base: MakeBase
) -> None:
    vae = starter_base().vae
    square = next(bucket for bucket in _encode(images, vae) if len(bucket.images) == 2)
    with torch.no_grad():
        decoded = vae.decode(square.mean[:, 0] / vae.config.scaling_factor).sample
    corner = decoded[0, :, :4, :4].mean(dim=(1, 2))
    expected = torch.tensor([20, 90, 60]) / 127.5 - 1
    assert (corner - expected).abs().max() < 0.15


def test_a_plain_autoencoder_has_no_deviation_and_a_variational_one_has(
    images: list[TrainingImage], starter_base: MakeBase, smallest_sd15: MakeBase
) -> None:
    assert all(bucket.std is None for bucket in _encode(images, starter_base().vae))
    for bucket in _encode(images, smallest_sd15().vae):
        assert bucket.std is not None
        assert bucket.std.shape == bucket.mean.shape
        assert bool((bucket.std > 0).all())


def test_a_focus_has_latents_of_its_own_and_is_known_to_the_model(
    images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path, encoder_calls: list[int]
) -> None:
    wide = tmp_path / "wide.png"
    Image.linear_gradient("L").rotate(90).resize((300, 100)).save(wide)
    plain = TrainingImage(wide, "wide", "")
    left, middle = replace(plain, focus=(0.0, 0.5)), replace(plain, focus=(0.5, 0.2))
    vae = smallest_sd15().vae
    first, centered, moved = (
        _encode([image], vae, tmp_path / "cache")[0] for image in (plain, middle, left)
    )
    assert sum(encoder_calls) == 2  # the middle of the image is cached under the old name
    assert torch.equal(first.mean, centered.mean)
    assert not torch.equal(first.mean, moved.mean)
    assert first.time_ids[0, 3] > 0 == moved.time_ids[0, 3]  # SDXL is told where the crop begins


def test_a_second_run_needs_no_encoder(
    images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path, encoder_calls: list[int]
) -> None:
    first = _encode(images, smallest_sd15().vae, tmp_path)
    assert sum(encoder_calls) == 3
    second = _encode(images, smallest_sd15().vae, tmp_path)
    assert sum(encoder_calls) == 3
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.mean, two.mean)
        assert one.std is not None
        assert two.std is not None
        assert torch.equal(one.std, two.std)


def test_only_new_pictures_are_encoded(
    images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path, encoder_calls: list[int]
) -> None:
    _encode(images[:1], smallest_sd15().vae, tmp_path)
    _encode(images, smallest_sd15().vae, tmp_path)
    assert sum(encoder_calls) == 3


def test_a_damaged_file_is_encoded_again(
    images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path, encoder_calls: list[int]
) -> None:
    first = _encode(images, smallest_sd15().vae, tmp_path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[0].write_bytes(files[0].read_bytes()[:40])
    files[1].write_bytes(b"")
    again = _encode(images, smallest_sd15().vae, tmp_path)
    assert sum(encoder_calls) == 5
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(first, again, strict=True))


def test_a_file_whose_numbers_are_not_those_written_is_encoded_again(
    images: list[TrainingImage], smallest_sd15: MakeBase, tmp_path: Path, encoder_calls: list[int]
) -> None:
    first = _encode(images[:1], smallest_sd15().vae, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-400] + bytes(400))  # as a power cut leaves it
    again = _encode(images[:1], smallest_sd15().vae, tmp_path)
    assert sum(encoder_calls) == 2
    assert torch.equal(first[0].mean, again[0].mean)
    save_file(load_file(file), file)  # without a checksum, as they were written once
    _encode(images[:1], smallest_sd15().vae, tmp_path)
    assert sum(encoder_calls) == 2


def test_another_vae_has_its_own_cache(smallest_sd15: MakeBase) -> None:
    vae = smallest_sd15().vae
    before = vae_fingerprint(vae)
    assert vae_fingerprint(smallest_sd15().vae) == before
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(1.01)
    assert vae_fingerprint(vae) != before


def test_mirrored_latents_are_of_the_mirrored_picture(
    images: list[TrainingImage], starter_base: MakeBase
) -> None:
    vae = starter_base().vae
    (bucket,) = _encode(images[:1], vae, flip=True)
    with torch.no_grad():
        plain, mirrored = vae.decode(bucket.mean[0] / vae.config.scaling_factor).sample
    assert (plain.flip(-1) - mirrored).abs().mean() < (plain - mirrored).abs().mean() / 3


def test_size_conditioning_contains_source_and_crop(
    images: list[TrainingImage], smallest_sdxl: MakeBase
) -> None:
    wide = next(bucket for bucket in _encode(images, smallest_sdxl().vae) if bucket.images == (2,))
    height, width, top, left, *target = wide.time_ids[0].tolist()
    assert (height, width) == (56, 96)
    assert target == [wide.size.height, wide.size.width]
    assert (top, left) >= (0, 0)


def test_a_damaged_image_is_named(starter_base: MakeBase, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DatasetError, match=r"bad\.png"):
        _encode([TrainingImage(path, "0" * 64, "")], starter_base().vae)
