"""Measures of pixels: drawn styles are sharp, blurred ones are not, copies are near-duplicates."""

from __future__ import annotations

import io
from itertools import combinations

import pytest
from PIL import Image, ImageDraw, ImageFilter

from app.registry.datasets.measures import BLURRY_BELOW, NEAR_DISTANCE
from app.registry.images.pixels import measure, perceptual_hash, plain_ground, sharpness
from worker.core.starter.examples import EXAMPLES

STEMS = ("fox", "sailboat", "teapot", "whale")


def drawings() -> dict[str, Image.Image]:
    """Examples of both embedded styles, and a flat drawing, which has few edges."""
    found = {
        f"{example.key} {stem}": Image.open(example.folder / f"{stem}.webp").convert("RGB")
        for example in EXAMPLES.values()
        for stem in STEMS
    }
    flat = Image.new("RGB", (1024, 1024), "#a0c8e8")
    ImageDraw.Draw(flat).ellipse((200, 300, 800, 900), fill="#803020")
    found["flat"] = flat.resize((512, 512), Image.Resampling.LANCZOS)
    return found


def as_jpeg(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=60)
    return Image.open(content).convert("RGB")


def test_drawings_are_sharp_until_they_are_blurred() -> None:
    for name, image in drawings().items():
        gray = image.convert("L")
        for kept in (gray, as_jpeg(image).convert("L"), gray.resize((200, 200))):
            assert (sharpness(kept) or 0) > BLURRY_BELOW + 0.1, name
        blurred = gray.filter(ImageFilter.GaussianBlur(3))
        assert (sharpness(blurred) or 0) < BLURRY_BELOW, name


def test_copies_have_near_hashes_and_other_drawings_do_not() -> None:
    hashes = {}
    for name, image in drawings().items():
        hashes[name] = perceptual_hash(image.convert("L"))
        enlarged = image.resize((777, 700))
        for copy in (as_jpeg(image), enlarged, image.filter(ImageFilter.GaussianBlur(2))):
            distance = (hashes[name] ^ perceptual_hash(copy.convert("L"))).bit_count()
            assert distance <= NEAR_DISTANCE, name
    for (one, first), (other, second) in combinations(hashes.items(), 2):
        assert (first ^ second).bit_count() > NEAR_DISTANCE + 4, (one, other)


def test_a_plain_ground_is_found_by_its_border() -> None:
    board = drawings()["chalkboard fox"]
    color, share = plain_ground(board)
    assert share == 1
    assert color is not None
    assert color[1:3] < color[3:5]  # the board is green
    half = Image.new("RGB", (100, 60), "white")
    half.paste("black", (0, 0, 50, 60))
    assert plain_ground(half)[0] is None


@pytest.mark.parametrize("size", [(8, 8), (8, 128), (512, 32)])
def test_small_and_blank_images_are_measured_too(size: tuple[int, int]) -> None:
    blank = measure(Image.new("RGB", size, "#336699"))
    assert blank == {
        "sharpness": None,  # there is nothing to see
        "perceptual_hash": None,
        "ground": "#336699",
        "ground_share": 1.0,
    }
    gradient = Image.linear_gradient("L").resize(size).convert("RGB")
    measured = measure(gradient)
    assert measured["sharpness"] is not None
    assert len(measured["perceptual_hash"]) == 16
