"""The process that decodes uploaded images one after another under resource limits.

`images.ImageDecoder` starts it by its path. It imports only the standard library and Pillow, and
exchanges JSON lines: a request `{"source", "clean", "thumbnail", "small"}` (paths), then a result.
If a hostile file crashes the decoder, loops or allocates too much memory, only this process ends
and only that file is refused. It exits when its standard input is closed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import runpy
import signal
import sys
import warnings
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
MIN_SIDE = 8  # pixels: one cell of the latents
MAX_ELONGATION = 16  # long side / short side
THUMBNAIL = 512  # pixels, longest side
SMALL = 256  # pixels, longest side of the small thumbnail
QUALITY = 82  # of WebP
SMALL_QUALITY = 75  # three quarters of the bytes (measured); lists show dozens
PIXEL_ART = 256  # pixels, longest side: thumbnails of smaller images are lossless
PNG_LEVEL = 3  # files as small as level 6, in two fifths of its time (measured)

MEMORY_LIMIT = (
    2 << 30
)  # bytes of address space; rotating a 50-megapixel RGBA WebP with ICC takes 1.5 GB
CPU_LIMIT = 60  # seconds per image
OUTPUT_LIMIT = 1 << 30  # bytes of one written file

ANIMATED = "This is an animated image. Save the frame you want as a single PNG, JPEG or WebP image."
CUT_OFF = "The image is truncated: the file ends too early. Upload the original again."
DAMAGED = "The image is damaged and cannot be decoded. Open it in an editor and save it again."
TOO_MUCH_MEMORY = "Decoding this image takes too much memory. Save it again as PNG or JPEG."
ACCEPTED = "only JPEG, PNG and WebP images can be used"


class UnusableImage(Exception):
    """The image is refused; the message gives the reason."""


def decode(source: Path, clean: Path, thumbnail: Path, small: Path) -> dict[str, Any]:
    """Write the normalized image and its thumbnails; return size, format, note and measures.

    The small thumbnail is only written if it is smaller than the other one.
    """
    refuse_other_contents(source)
    with _open_image(source) as image:
        check_size(*image.size)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            raise UnusableImage(ANIMATED)  # (an MPO is a JPEG followed by previews: use the first)
        file_format = "JPEG" if image.format == "MPO" else str(image.format)
        upright, notes = normalize(image)
    upright.save(clean, "PNG", compress_level=PNG_LEVEL)
    width, height = upright.size
    has_transparency = upright.mode == "RGBA"
    upright = on_white(upright)
    shrink_to_webp(upright, thumbnail, THUMBNAIL)
    measured = measure_pixels(upright) | {"has_transparency": has_transparency}
    if max(width, height) > SMALL:
        shrink_to_webp(upright, small, SMALL)
        if small.stat().st_size >= thumbnail.stat().st_size:
            small.unlink()
    return {
        "width": width,
        "height": height,
        "format": file_format,
        "note": " ".join(notes),
        "measured": measured,
    }


def measure_pixels(image: Image.Image) -> dict[str, Any]:
    """The measures of an RGB image, by the columns of the table `image_measure`.

    The image is shrunk to sides of at most `THUMBNAIL` pixels, in place.
    """
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=3)
    measured: dict[str, Any] = _pixels()["measure"](image)
    return measured


@functools.cache
def _pixels() -> dict[str, Any]:
    """The names that `pixels.py` defines; the process cannot import our packages."""
    return runpy.run_path(str(Path(__file__).with_name("pixels.py")))


def shrink_to_webp(image: Image.Image, target: Path | IO[bytes], side: int) -> None:
    """Shrink the image to sides of at most `side` pixels, in place, and write it as a WebP.

    Images of at most `PIXEL_ART` pixels are lossless, because they are shown enlarged.
    """
    lossless = max(image.size) <= PIXEL_ART
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    quality = SMALL_QUALITY if side <= SMALL else QUALITY
    image.save(target, "WEBP", quality=quality, method=3, lossless=lossless)


def on_white(upright: Image.Image) -> Image.Image:
    """The image on a white background, as training uses it."""
    if upright.mode != "RGBA":
        return upright
    paper = Image.new("RGBA", upright.size, "white")
    return Image.alpha_composite(paper, upright).convert("RGB")


def refuse_other_contents(source: Path) -> None:
    """Raise UnusableImage for empty files and known other file types, naming the type."""
    with source.open("rb") as file:
        head = file.read(1024)
        size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise UnusableImage("The file is empty (0 bytes).")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        # libwebp allocates memory for all pixels on open, so check the size before
        check_size(*webp_size(head))
    kind = other_kind(head)
    if kind is not None:
        raise UnusableImage(f"This is {kind}; {ACCEPTED}.")


def other_kind(head: bytes) -> str | None:
    """The type of a file with this start, if it is a known type that is not accepted."""
    for magic, kind in (
        (b"GIF8", "a GIF"),
        (b"BM", "a BMP image"),
        (b"II*\0", "a TIFF image"),
        (b"MM\0*", "a TIFF image"),
        (b"8BPS", "a Photoshop file"),
        (b"%PDF", "a PDF document"),
        (b"%!PS", "a PostScript document"),
        (b"PK\3\4", "a zip archive; rename it to end in .zip to have it unpacked"),
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    ):
        if head.startswith(magic):
            return kind
    if head[4:8] == b"ftyp":
        brand = head[8:12].lower()
        if brand.startswith(b"av"):
            return "an AVIF image"
        return "a HEIC image" if brand[:2] in (b"he", b"mi") else "a video"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<"):
        if b"<svg" in text:
            return "an SVG drawing"
        return "a web page (HTML)" if b"<html" in text or b"<!doctype html" in text else "XML text"
    return None


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    chunk, data = head[12:16], head[20:30]
    if len(data) < 10:
        raise UnusableImage(CUT_OFF)
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        sides = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
        return sides[0] & 0x3FFF, sides[1] & 0x3FFF
    raise UnusableImage(DAMAGED)


def check_size(width: int, height: int) -> None:
    """Raise UnusableImage for too many or too few pixels, and for extreme aspect ratios."""
    if width * height > MAX_PIXELS:
        raise UnusableImage(
            f"This image has {width:,} × {height:,} pixels; at most "
            f"{MAX_PIXELS // 1_000_000} megapixels can be used. Make it smaller first."
        )
    if min(width, height) < MIN_SIDE:
        raise UnusableImage(
            f"This image has {width:,} × {height:,} pixels; it needs at least "
            f"{MIN_SIDE} × {MIN_SIDE}."
        )
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise UnusableImage(
            f"This image of {width:,} × {height:,} pixels is too narrow: one side is more than "
            f"{MAX_ELONGATION} times the other. Crop it first."
        )


def _open_image(source: Path) -> Image.Image:
    try:
        return Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnusableImage(f"This is not an image; {ACCEPTED}.") from None


def normalize(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image as upright 8-bit sRGB without metadata, and notes on what was changed.

    Alpha is kept unless it is fully opaque: trainings can exclude transparent areas.
    """
    notes = []
    image.load()
    profile = image.info.get("icc_profile")
    upright = _make_upright(image)
    if upright is not image:
        notes.append("Rotated upright.")
    image = upright
    if image.mode == "CMYK":
        notes.append("Converted from CMYK; colors may differ slightly from print.")
    alpha = None
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
        notes.append("Reduced from 16 to 8 bits per channel.")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    image = _to_srgb(image, profile)
    if alpha is not None and alpha.getextrema()[0] != 255:
        notes.append("Transparent areas are trained as white, or excluded with “Masked loss”.")
        image.putalpha(alpha)
    image.info.clear()  # remove EXIF, GPS, comments and profiles
    return image, notes


def _make_upright(image: Image.Image) -> Image.Image:
    """The image rotated according to its EXIF; the same object if it is upright."""
    try:
        if image.getexif().get(0x0112, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF is common, and says nothing about the pixels
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray scaled to 8 bits; Pillow's convert() would clip it to white."""
    if image.mode == "F":
        image = image.convert("I")
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB pixels in sRGB; a profile that is broken or for another color space is ignored."""
    spaces = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            known = "sRGB" in ImageCms.getProfileDescription(own)
            if not known and own.profile.xcolor_space == spaces[image.mode]:
                srgb = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
                if converted is not None:
                    return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def answer(request: dict[str, str]) -> dict[str, Any]:
    """The result of `decode`, or `{"refused": reason}`, or `{"full": true}`; never raises."""
    try:
        paths = (Path(request[name]) for name in ("source", "clean", "thumbnail", "small"))
        return decode(*paths)
    except UnusableImage as refusal:
        return {"refused": str(refusal)}
    except MemoryError:
        return {"refused": TOO_MUCH_MEMORY}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return {"full": True}
        return {"refused": CUT_OFF if "truncated" in str(error) else DAMAGED}
    except Exception:  # decoders raise SyntaxError, struct.error, ValueError and others
        return {"refused": DAMAGED}


def limit_process() -> None:
    """Limit memory, file size and core dumps, where the system supports it."""
    # opening reads only headers; with this limit, check_size can name the size it refuses
    Image.MAX_IMAGE_PIXELS = 65_535**2
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    if sys.platform == "win32":
        return
    import resource  # POSIX has it

    for kind, most in (
        (resource.RLIMIT_AS, MEMORY_LIMIT),
        (resource.RLIMIT_FSIZE, OUTPUT_LIMIT),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some
            resource.setrlimit(kind, (most, most))


def grant_cpu() -> None:
    """Grant the next image its CPU seconds; exceeding them ends the process."""
    if sys.platform == "win32":
        return
    import resource  # POSIX has it

    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_LIMIT, hard))


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    limit_process()
    for line in sys.stdin:
        grant_cpu()
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - the protocol


if __name__ == "__main__":
    main()
