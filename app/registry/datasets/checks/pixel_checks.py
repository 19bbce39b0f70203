"""Checks images by their measures: alike, too small, blurry, elongated, transparent, one ground."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from app.registry.datasets.checks.findings import Check, Finding, Severity
from app.registry.datasets.checks.reading import CheckedImage
from app.registry.datasets.listing.piles import largest_group, piles
from app.registry.datasets.measures import (
    BLURRY_BELOW,
    ELONGATED_ABOVE,
    NEAR_DISTANCE,
)
from app.registry.datasets.training_side import TrainingSide
from app.registry.wording import plural

MIN_IMAGES = 5  # below that, what most images share is chance
ALIKE_DISTANCE = 14  # bits: a crop or shift by a twentieth; few different drawings are so near
ALIKE_SHARE = 0.6  # of the images that are variations of one
MOST = 0.5  # a property of more images than this belongs to the style, more likely than not
ONE_GROUND_SHARE = 0.9
MIRRORED_NAMED = 6  # files that a finding names
GROUND_DISTANCE = 40  # of 255, in each channel

MEASURED_CHECKS = (
    Check.NEAR_DUPLICATES,
    Check.SHARPNESS,
    Check.TRANSPARENCY,
    Check.ONE_GROUND,
)
"""The checks that need measures; size and shape do not."""


@dataclass(frozen=True)
class _Rule:
    """A property that single images have: what it is called, and why it matters."""

    check: Check
    matches: Callable[[CheckedImage], bool]
    one: str
    many: str
    reason: str
    style_reason: str = ""  # where most images have it


def check_pixels(images: Sequence[CheckedImage], side: TrainingSide) -> list[Finding]:
    """The findings about these images; those that were not measured have only a size and shape."""
    found = [_near_duplicates(images), _variations(images), _one_ground(images)]
    found += [_property(images, rule) for rule in _rules(side)]
    return [one for one in found if one is not None]


def not_measured(images: Sequence[CheckedImage]) -> dict[Check, str]:
    """For each check that could not look at all images: “not measured for 12 images yet”."""
    missing = sum(not image.is_measured for image in images)
    if not missing:
        return {}
    which = "all images" if missing == len(images) else plural(missing, "image")
    return dict.fromkeys(MEASURED_CHECKS, f"not measured for {which} yet")


def _rules(side: TrainingSide) -> list[_Rule]:
    trained_at = f"{side.base_name} trains at" if side.base_name else "Training is at"
    return [
        _Rule(
            Check.SIZE,
            lambda image: min(image.width, image.height) < side.pixels,
            f"is smaller than {side.pixels} px",
            f"are smaller than {side.pixels} px",
            f"{trained_at} {side.pixels} px; a smaller image is enlarged, and its blur is learned.",
        ),
        _Rule(
            Check.SHARPNESS,
            lambda image: image.sharpness is not None and image.sharpness < BLURRY_BELOW,
            "looks blurry",
            "look blurry",
            "Soft edges are learned like everything else.",
            "Soft edges are learned: right if they belong to the style.",
        ),
        _Rule(
            Check.SHAPE,
            lambda image: (
                max(image.width, image.height) > ELONGATED_ABOVE * min(image.width, image.height)
            ),
            "is very long or tall",
            "are very long or tall",
            "Training crops to 2:1 at most, so the ends are never seen. Crop it to its main part.",
        ),
        _Rule(
            Check.TRANSPARENCY,
            lambda image: image.has_transparency is True,
            "has transparent parts",
            "have transparent parts",
            "They become white in training, and white is learned, unless the run masks them.",
        ),
    ]


def _property(images: Sequence[CheckedImage], rule: _Rule) -> Finding | None:
    ids = tuple(image.id for image in images if rule.matches(image))
    if not ids:
        return None
    of_style = bool(rule.style_reason) and len(ids) > MOST * len(images) and len(images) > 1
    return Finding(
        rule.check,
        Severity.ADVICE if of_style else Severity.WARNING,
        f"{plural(len(ids), 'image')} {rule.one if len(ids) == 1 else rule.many}",
        rule.style_reason if of_style else rule.reason,
        image_ids=ids,
    )


def _hashes(images: Iterable[CheckedImage]) -> dict[int, int]:
    """The hashes of the images that have edges; of an empty one, it means nothing."""
    return {
        image.id: image.perceptual_hash
        for image in images
        if image.perceptual_hash is not None and image.sharpness is not None
    }


def _near_duplicates(images: Sequence[CheckedImage]) -> Finding | None:
    """Piles of images that are nearly the same, the one to keep first.

    It is the largest, of equal ones the oldest. A copy in other colors may be the sharpest.
    """
    best = sorted(images, key=lambda one: (-one.width * one.height, one.id))
    hashes = _hashes(images)
    found = piles(hashes, best_first=[image.id for image in best])
    if not found:
        return None
    mirrored = [
        image_id
        for first, *others in found
        for image_id in others
        if (hashes[first] ^ hashes[image_id]).bit_count() > NEAR_DISTANCE
    ]
    count = sum(map(len, found))
    of_one = "in one pile" if len(found) == 1 else f"in {len(found):,} piles"
    return Finding(
        Check.NEAR_DUPLICATES,
        Severity.WARNING,
        f"{count:,} near-duplicates {of_one}" + _count_of_mirrored(mirrored),
        "The same image several times counts several times: its subject is learned, too. "
        "The largest of each pile would be kept, of equal ones the oldest.",
        image_ids=tuple(image_id for pile in found for image_id in pile),
        piles=tuple(map(tuple, found)),
        details=_names_of_mirrored(images, mirrored),
    )


def _count_of_mirrored(image_ids: Sequence[int]) -> str:
    """“, 2 of them mirrored”; empty for none."""
    return f", {len(image_ids):,} of them mirrored" if image_ids else ""


def _names_of_mirrored(images: Sequence[CheckedImage], image_ids: Sequence[int]) -> tuple[str, ...]:
    """The files that are mirrored copies of the first image of their pile; empty for none."""
    if not image_ids:
        return ()
    names = {image.id: image.filename for image in images}
    shown = ", ".join(names[image_id] for image_id in image_ids[:MIRRORED_NAMED])
    left = len(image_ids) - MIRRORED_NAMED
    return (f"Mirrored: {shown} and {left:,} more." if left > 0 else f"Mirrored: {shown}.",)


def _variations(images: Sequence[CheckedImage]) -> Finding | None:
    """That most images are variations of one."""
    hashes = _hashes(images)
    if len(hashes) < MIN_IMAGES:
        return None
    group = largest_group(hashes, ALIKE_DISTANCE)
    if len(group) < ALIKE_SHARE * len(hashes):
        return None
    return Finding(
        Check.ONE_SUBJECT,
        Severity.WARNING,
        f"{len(group):,} of {plural(len(hashes), 'image')} look like variations of one",
        "What they all show is learned as the style. Add images of other subjects, composed "
        "differently.",
        image_ids=tuple(group),
    )


def _one_ground(images: Sequence[CheckedImage]) -> Finding | None:
    """That nearly all images have the same plain ground."""
    measured = [image for image in images if image.is_measured]
    grounds = {image.id: _channels(image.ground) for image in measured if image.ground}
    if len(measured) < MIN_IMAGES or not grounds:
        return None
    middle = [int(median(values)) for values in zip(*grounds.values(), strict=True)]
    same = tuple(
        image_id
        for image_id, color in grounds.items()
        if all(abs(a - b) <= GROUND_DISTANCE for a, b in zip(color, middle, strict=True))
    )
    if len(same) < ONE_GROUND_SHARE * len(measured):
        return None
    return Finding(
        Check.ONE_GROUND,
        Severity.ADVICE,
        f"{len(same):,} of {plural(len(measured), 'image')} have the same plain background",
        "The style will bring this background along. If it does not belong to the style, add "
        "images on other backgrounds.",
        image_ids=same,
    )


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
