"""Checks of images by their measures."""

from __future__ import annotations

import random
from typing import Any

import pytest
from PIL import Image, ImageOps

from app.registry.datasets.checks.findings import Check, Finding, Severity
from app.registry.datasets.checks.pixel_checks import check_pixels, not_measured
from app.registry.datasets.checks.reading import CheckedImage
from app.registry.datasets.listing.piles import mirrored_pairs, near_pairs, piles
from app.registry.datasets.training_side import TrainingSide
from app.registry.images.decoding import measure_pixels
from app.registry.images.pixels import mirrored_hash, perceptual_hash
from worker.core.starter.examples import EXAMPLES, Example

SIDE = TrainingSide(512, "starter")
FAR = random.Random(7)


def image(number: int, **values: Any) -> CheckedImage:
    usual: dict[str, Any] = {
        "filename": f"{number}.png",
        "width": 640,
        "height": 640,
        "is_measured": True,
        "sharpness": 0.6,
        "perceptual_hash": FAR.getrandbits(64),
        "has_transparency": False,
        "ground": None,
    }
    values = {"clean_sha256": "c", "thumbnail_sha256": "t"} | usual | values
    return CheckedImage(number, captions=(), is_unusable=False, **values)


def found(*images: CheckedImage) -> list[tuple[Check, Severity, tuple[int, ...]]]:
    return [(one.check, one.level, one.image_ids) for one in check_pixels(images, SIDE)]


def only(*images: CheckedImage) -> Finding:
    (one,) = check_pixels(images, SIDE)
    return one


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda example: example.title)
def test_the_examples_get_the_advice_that_their_ground_comes_along(example: Example) -> None:
    images = []
    for number, path in enumerate(sorted(example.folder.glob("*.webp"))):
        with Image.open(path) as picture:
            measured = measure_pixels(picture.convert("RGB"))
        measured["perceptual_hash"] = int(measured["perceptual_hash"], 16)
        measured.pop("ground_share")
        images.append(image(number, width=512, height=512, **measured))
    one = only(*images)
    assert (one.check, one.level, one.count) == (Check.ONE_GROUND, Severity.ADVICE, 24)


def test_usual_images_have_no_finding() -> None:
    assert found(*(image(number) for number in range(50))) == []


@pytest.mark.parametrize(
    ("values", "check", "title"),
    [
        ({"width": 511}, Check.SIZE, "1 image is smaller than 512 px"),
        ({"sharpness": 0.2}, Check.SHARPNESS, "1 image looks blurry"),
        ({"width": 1700}, Check.SHAPE, "1 image is very long or tall"),
        ({"has_transparency": True}, Check.TRANSPARENCY, "1 image has transparent parts"),
    ],
)
def test_single_images_are_found_by_their_properties(
    values: dict[str, Any], check: Check, title: str
) -> None:
    one = only(image(1), image(2, **values), image(3))
    assert (one.check, one.level, one.title, one.image_ids) == (
        check,
        Severity.WARNING,
        title,
        (2,),
    )


def test_softness_of_most_images_is_a_style() -> None:
    one = only(*(image(number, sharpness=0.1) for number in range(6)), image(6))
    assert (one.check, one.level) == (Check.SHARPNESS, Severity.ADVICE)


def test_near_duplicates_are_piles_with_the_largest_first_then_the_earliest() -> None:
    one = only(
        *(image(number) for number in range(6, 12)),
        image(1, perceptual_hash=0, sharpness=0.5),
        image(2, perceptual_hash=0b111, sharpness=0.7),  # as a copy in other colors may be
        image(3, perceptual_hash=0b111_111, sharpness=0.8, width=600),
        image(12, perceptual_hash=0, sharpness=None),  # an empty image is like no other one
        image(4, perceptual_hash=2**64 - 1),
        image(5, perceptual_hash=2**64 - 2, width=900),
    )
    assert one.title == "5 near-duplicates in 2 piles"
    assert one.piles == ((5, 4), (1, 2, 3))
    assert one.not_kept == [4, 2, 3]
    assert one.reason.endswith("The largest of each pile would be kept, of equal ones the oldest.")


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda example: example.title)
def test_mirrored_copies_are_near_duplicates_and_called_mirrored(example: Example) -> None:
    images = []
    for number, path in enumerate(sorted(example.folder.glob("*.webp"))):
        with Image.open(path) as picture:
            drawn = picture.convert("L")
        copy = ImageOps.mirror(drawn).resize((200, 200))
        images.append(image(number, perceptual_hash=perceptual_hash(drawn)))
        images.append(image(100 + number, perceptual_hash=perceptual_hash(copy), filename="m.png"))
    one = next(one for one in check_pixels(images, SIDE) if one.check is Check.NEAR_DUPLICATES)
    assert set(one.piles) == {(number, 100 + number) for number in range(24)}
    assert one.title == "48 near-duplicates in 24 piles, 24 of them mirrored"
    assert one.details == ("Mirrored: m.png" + ", m.png" * 5 + " and 18 more.",)


def test_a_copy_that_is_not_mirrored_is_not_called_so() -> None:
    one = only(image(1, perceptual_hash=0), image(2, perceptual_hash=0b1))
    assert (one.title, one.details) == ("2 near-duplicates in one pile", ())


def test_a_row_of_small_changes_is_not_one_pile() -> None:
    hashes = {number: (1 << 5 * number) - 1 for number in range(6)}  # 5 bits from one to the next
    assert piles(hashes, best_first=range(6)) == [[0, 1], [2, 3], [4, 5]]


def test_pairs_are_those_of_a_comparison_of_all() -> None:
    chance = random.Random(1)
    centers = [chance.getrandbits(64) for _ in range(40)]
    hashes = {}
    for number in range(400):
        value = chance.choice(centers)
        for bit in chance.sample(range(64), chance.randint(0, 8)):
            value ^= 1 << bit
        hashes[number] = value
    expected = {
        a: near
        for a, first in hashes.items()
        if (
            near := {
                b for b, other in hashes.items() if a != b and (first ^ other).bit_count() <= 6
            }
        )
    }
    assert near_pairs(hashes, 6) == expected


def test_mirrored_pairs_are_those_of_a_comparison_of_all() -> None:
    chance = random.Random(2)
    hashes = {}
    for number in range(0, 400, 2):
        hashes[number] = chance.getrandbits(64)
        hashes[number + 1] = mirrored_hash(hashes[number])
        for bit in chance.sample(range(64), chance.randint(0, 12)):
            hashes[number + 1] ^= 1 << bit
    turned = {key: mirrored_hash(value) for key, value in hashes.items()}
    expected = {
        a: near
        for a, first in turned.items()
        if (near := {b for b, other in hashes.items() if (first ^ other).bit_count() <= 10})
    }
    assert 300 < len(expected) < 400
    assert mirrored_pairs(hashes, 10) == expected


def test_variations_of_one_image_are_reported() -> None:
    images = [image(number, perceptual_hash=0b1111111 << number) for number in range(8)]
    assert (Check.ONE_SUBJECT, Severity.WARNING) in [row[:2] for row in found(*images, image(9))]


def test_one_plain_ground_is_advice() -> None:
    images = [image(number, ground=f"#26423{number}") for number in range(9)]
    one = only(*images, image(10))
    assert (one.check, one.level, one.count) == (Check.ONE_GROUND, Severity.ADVICE, 9)
    assert one.title == "9 of 10 images have the same plain background"
    assert found(*images, image(10), image(11)) == []  # two of eleven have another one


def test_images_that_were_not_measured_are_counted() -> None:
    missing = image(1, is_measured=False, sharpness=None, perceptual_hash=None)
    assert not_measured([missing, image(2)])[Check.SHARPNESS] == "not measured for 1 image yet"
    assert not_measured([missing])[Check.NEAR_DUPLICATES] == "not measured for all images yet"
    assert not_measured([image(2)]) == {}
