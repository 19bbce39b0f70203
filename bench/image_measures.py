"""Measures of drawn images, sharp and spoiled: `python -m bench.image_measures`.

Prints the table that the thresholds of `app/registry/datasets/measures.py` come from:
the sharpness of the embedded examples and of drawings with few edges, as they are and after what
happens to images (compressed, enlarged, blurred); beside it the variance of the Laplacian, which is
usual; then how many bits of the hash differ between copies and between different drawings; then
the time that measuring adds to an upload.
"""

from __future__ import annotations

import io
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps, ImageStat

from app.registry.datasets.measures import BLURRY_BELOW, NEAR_DISTANCE
from app.registry.images import decoding
from app.registry.images.pixels import SIDE, mirrored_hash, perceptual_hash, sharpness
from worker.core.starter.examples import EXAMPLES

DRAWINGS = 16  # of each kind that is drawn here
Spoil = Callable[[Image.Image], Image.Image]
LAPLACIAN = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)


def flat(seed: int) -> Image.Image:
    """A few shapes of one color each on a plain ground: almost no edges."""
    dice = random.Random(seed)
    side = 4 * SIDE
    image = Image.new("RGB", (side, side), tuple(dice.randint(150, 255) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(dice.randint(2, 5)):
        left, top = dice.randint(side // 5, side * 3 // 5), dice.randint(side // 5, side * 3 // 5)
        box = (left, top, left + dice.randint(300, 700), top + dice.randint(300, 700))
        shape = pen.ellipse if dice.random() < 0.6 else pen.rectangle
        shape(box, fill=tuple(dice.randint(0, 255) for _ in range(3)))
    return image.resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)


def lines(seed: int) -> Image.Image:
    """A line drawing on white."""
    dice = random.Random(seed)
    side = 4 * SIDE
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        points = [tuple(dice.randint(side // 6, side * 5 // 6) for _ in "xy") for _ in range(4)]
        pen.line(points, fill=(30, 30, 30), width=side // 200, joint="curve")
    return image.resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS)


def drawn_styles() -> Mapping[str, Sequence[Image.Image]]:
    """The drawings of each style."""
    examples = {
        key: [Image.open(file).convert("RGB") for file in sorted(example.folder.glob("*.webp"))]
        for key, example in EXAMPLES.items()
    }
    return examples | {
        draw.__name__: [draw(seed) for seed in range(DRAWINGS)] for draw in (flat, lines)
    }


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image after it was saved as a JPEG."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def enlarged(image: Image.Image, times: int) -> Image.Image:
    """The image as it looks if it was only a fraction of its size."""
    small = image.resize((image.width // times, image.height // times), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def blurred(image: Image.Image, radius: float) -> Image.Image:
    """The image under a Gaussian of this many pixels at the size where sharpness is measured."""
    return image.filter(ImageFilter.GaussianBlur(radius * image.width / SIDE))


SPOILED: Mapping[str, Spoil] = {
    "as it is": lambda image: image,
    "JPEG 85": lambda image: as_jpeg(image, 85),
    "JPEG 40": lambda image: as_jpeg(image, 40),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "64 pixels": lambda image: image.resize((64, 64), Image.Resampling.LANCZOS),
    "enlarged 2 times": lambda image: enlarged(image, 2),
    "enlarged 4 times": lambda image: enlarged(image, 4),
    "blurred by 1 px": lambda image: blurred(image, 1),
    "blurred by 2 px": lambda image: blurred(image, 2),
    "blurred by 4 px": lambda image: blurred(image, 4),
}


def laplacian(gray: Image.Image) -> float:
    """The variance of the Laplacian at the same size, without the edge that Pillow copies."""
    gray = gray.copy()
    gray.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    inner = (1, 1, gray.width - 1, gray.height - 1)
    return float(ImageStat.Stat(gray.filter(LAPLACIAN).crop(inner)).var[0])


def print_sharpness(styles: Mapping[str, Sequence[Image.Image]]) -> None:
    """Least and greatest sharpness of each style; the same of the Laplacian in brackets."""
    print(f"Sharpness, blurry below {BLURRY_BELOW}\n\n| | {' | '.join(styles)} |")
    print("|---" * (len(styles) + 1) + "|")
    for name, spoil in SPOILED.items():
        cells = []
        for images in styles.values():
            grays = [spoil(image).convert("L") for image in images]
            sharp = [sharpness(gray) or 0.0 for gray in grays]
            usual = [laplacian(gray) for gray in grays]
            cells.append(f"{min(sharp):.2f}–{max(sharp):.2f} ({min(usual):.0f}–{max(usual):.0f})")
        print(f"| {name} | {' | '.join(cells)} |")


def print_distances(styles: Mapping[str, Sequence[Image.Image]]) -> None:
    """The greatest distance of a copy, and the least ones between different drawings."""
    spoiled = dict(SPOILED) | {
        "3 % cropped": lambda image: image.crop(
            (image.width * 3 // 100, image.height * 3 // 100, image.width * 97 // 100, image.height)
        ),
        "15 % brighter": lambda image: image.point(lambda value: min(255, int(value * 1.15))),
        "moved by 2 %": lambda image: ImageChops.offset(image, image.width // 50, 0),
    }
    print(f"\nBits of 64 that differ, near-duplicates up to {NEAR_DISTANCE}\n")
    for style, images in styles.items():
        hashes = [perceptual_hash(image.convert("L")) for image in images]
        pairs = sorted((one ^ other).bit_count() for one, other in combinations(hashes, 2))
        print(f"{style}: different drawings from {pairs[0]} on, median {pairs[len(pairs) // 2]};")
        copies = {
            name: max(
                (sha ^ perceptual_hash(spoil(image).convert("L"))).bit_count()
                for sha, image in zip(hashes, images, strict=True)
            )
            for name, spoil in spoiled.items()
        }
        print("   copies at most: " + ", ".join(f"{name} {bits}" for name, bits in copies.items()))
        turned = [mirrored_hash(value) for value in hashes]
        own = max(
            (value ^ perceptual_hash(ImageOps.mirror(image).convert("L"))).bit_count()
            for value, image in zip(turned, images, strict=True)
        )
        others = min(
            (one ^ other).bit_count()
            for one, other in product(turned, hashes)
            if mirrored_hash(one) != other
        )
        print(f"   mirrored copies at most {own}, mirrored other drawings from {others} on")


def print_cost(images: Sequence[Image.Image]) -> None:
    """CPU time of an upload, and of that for measuring."""
    print("\nCPU time of an upload, ms\n")
    with tempfile.TemporaryDirectory() as folder:
        source, *targets = (Path(folder) / name for name in ("in.png", "out.png", "t", "s"))
        for side in (512, 1024, 2048):
            decoded = measured = 0.0
            for image in images:
                image.resize((side, side)).save(source)
                started = time.process_time()
                decoding.decode(source, *targets)
                decoded += time.process_time() - started
                seen = image.resize((SIDE, SIDE))
                started = time.process_time()
                decoding.measure_pixels(seen)
                measured += time.process_time() - started
            cost = [1000 * seconds / len(images) for seconds in (decoded, measured)]
            print(f"{side} × {side}: {cost[0]:.0f}, of which measures {cost[1]:.1f}")


def main() -> None:
    """Print the tables."""
    styles = drawn_styles()
    print_sharpness(styles)
    print_distances(styles)
    print_cost(next(iter(styles.values()))[:8])


if __name__ == "__main__":
    main()
