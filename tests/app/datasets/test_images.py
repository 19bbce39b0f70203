import io
import os
import signal
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from app.registry.errors import StorageFullError
from app.registry.images import decoder as images
from app.registry.images import decoding
from app.registry.images.decoder import DecodedImage, ImageDecoder, ImageRefused
from app.registry.images.decoding import on_white
from tests.app.datasets.corpus import (
    HTML,
    SVG,
    animated,
    archive,
    encode,
    huge_png,
    huge_webp,
    photo,
    picture,
    png,
    rotated_photo,
    sixteen_bit_png,
    wide_gamut,
)

Decode = Callable[[bytes], DecodedImage]


@pytest.fixture
def decode(decoder: ImageDecoder, tmp_path: Path) -> Decode:
    def decode(data: bytes) -> DecodedImage:
        source = tmp_path / "upload"
        source.write_bytes(data)
        return decoder.decode(source, tmp_path)

    return decode


def middle(path: Path) -> tuple[int, ...]:
    """The color of the middle as a training sees it: on white."""
    with Image.open(path) as image:
        assert image.mode in ("RGB", "RGBA")
        seen = on_white(image)
        pixel = seen.getpixel((seen.width // 2, seen.height // 2))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_it_measures_and_normalizes_the_three_formats(decode: Decode, file_format: str) -> None:
    decoded = decode(picture(file_format, size=(70, 50)))

    assert (decoded.width, decoded.height, decoded.format) == (70, 50, file_format)
    assert decoded.note is None
    assert decoded.measured["has_transparency"] is False
    assert decoded.measured["ground"] is not None
    with Image.open(decoded.clean) as clean, Image.open(decoded.thumbnail) as thumbnail:
        assert (clean.format, clean.mode, clean.size) == ("PNG", "RGB", (70, 50))
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (70, 50))


def test_thumbnails_are_at_most_512_pixels(decode: Decode) -> None:
    decoded = decode(photo(size=(1500, 1000)))

    with Image.open(decoded.thumbnail) as thumbnail:
        assert thumbnail.size == (512, 341)
    assert decoded.small is not None
    with Image.open(decoded.small) as small:
        assert (small.format, small.size) == ("WEBP", (256, 171))
    assert decoded.small.stat().st_size < decoded.thumbnail.stat().st_size
    with Image.open(decoded.clean) as clean:
        assert clean.size == (1500, 1000)
    assert sorted(decoded.files) == sorted(decoded.clean.parent.glob(f"{decoded.clean.stem}*"))


def test_thumbnails_of_pixel_art_are_exact(decode: Decode) -> None:
    art = Image.effect_noise((64, 64), 90).convert("RGB")
    decoded = decode(encode(art))
    with Image.open(decoded.thumbnail) as thumbnail:
        assert thumbnail.convert("RGB").tobytes() == art.tobytes()
    assert decoded.small is None


REFUSED = {
    "0 bytes": (b"", "The file is empty (0 bytes)."),
    "noise": (bytes(range(256)) * 16, "This is not an image; only JPEG, PNG and WebP"),
    "text": (b"just some words", "This is not an image"),
    "SVG": (SVG, "This is an SVG drawing; only JPEG, PNG and WebP"),
    "HTML": (HTML, "This is a web page (HTML)"),
    "PDF": (b"%PDF-1.7 ...", "This is a PDF document"),
    "zip": (archive({"a.png": b"x"}), "This is a zip archive"),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(40), "This is a HEIC image"),
    "AVIF": (b"\0\0\0\x18ftypavif" + bytes(40), "This is an AVIF image"),
    "BMP": (picture("BMP"), "This is a BMP image"),
    "TIFF": (picture("TIFF"), "This is a TIFF image"),
    "GIF": (animated("GIF"), "This is a GIF"),
    "animated PNG": (animated("PNG"), "This is an animated image."),
    "animated WebP": (animated("WEBP"), "This is an animated image."),
    "cut-off JPEG": (photo()[: len(photo()) // 2], "The image is truncated"),
    "cut-off PNG": (encode(Image.effect_noise((64, 64), 50))[:1500], "The image is truncated"),
    "cut-off WebP": (picture("WEBP")[:24], "The image is truncated"),
    "half a header": (b"\x89PNG\r\n\x1a\n", "image"),
    "400 megapixels": (huge_png(), "20,000 × 20,000 pixels; at most 50 megapixels"),
    "huge WebP": (huge_webp(), "16,383 × 16,383 pixels; at most 50 megapixels"),
    "one pixel": (picture(size=(1, 1)), "1 × 1 pixels; it needs at least 8 × 8"),
    "strip": (picture(size=(8, 900)), "8 × 900 pixels is too narrow"),
    "rows missing": (png(64, 64, data=bytes(100)), "The image is truncated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_with_a_reason(decode: Decode, case: str, tmp_path: Path) -> None:
    data, reason = REFUSED[case]
    with pytest.raises(ImageRefused) as caught:
        decode(data)

    assert reason in caught.value.detail
    assert caught.value.detail.endswith(".")
    assert caught.value.status == 422
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]


def test_the_huge_picture_of_the_corpus_is_small_on_disk() -> None:
    assert len(huge_png()) < 60_000


def test_a_flipped_byte_is_refused_or_decoded_but_never_an_error(decode: Decode) -> None:
    data = encode(Image.effect_noise((40, 40), 50))
    outcomes = set()
    for position in range(8, len(data), 97):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        try:
            decode(bytes(broken))
            outcomes.add("decoded")
        except ImageRefused:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_a_file_over_50_mb_is_refused_unread(decoder: ImageDecoder, tmp_path: Path) -> None:
    source = tmp_path / "big.jpg"
    with source.open("wb") as file:
        file.truncate(60_000_001)

    with pytest.raises(ImageRefused, match="larger than 60 MB"):
        decoder.decode(source, tmp_path)
    with source.open("r+b") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageRefused, match="not an image"):  # it was read: a PNG may be larger
        decoder.decode(source, tmp_path)
    with source.open("r+b") as file:
        file.truncate(204_000_001)
    with pytest.raises(ImageRefused, match="larger than 204 MB"):
        decoder.decode(source, tmp_path)


def test_exif_turns_the_pixels_and_is_then_left_behind(decode: Decode) -> None:
    decoded = decode(rotated_photo())

    assert (decoded.width, decoded.height) == (32, 64)
    assert decoded.note == "Rotated upright."
    with Image.open(decoded.clean) as clean:
        red, _, blue = clean.getpixel((16, 8))  # type: ignore[misc]
        assert red > 200 > 50 > blue
        assert not clean.getexif()
        assert set(clean.info) <= {"dpi"}
    assert b"secret" not in decoded.clean.read_bytes() + decoded.thumbnail.read_bytes()


def test_what_hides_behind_the_pixels_is_left_behind(decode: Decode) -> None:
    polyglot = picture("JPEG") + archive({"evil.html": HTML}, compression=zipfile.ZIP_STORED)
    assert zipfile.is_zipfile(io.BytesIO(polyglot))

    decoded = decode(polyglot)

    assert b"script" not in decoded.clean.read_bytes() + decoded.thumbnail.read_bytes()


def test_cmyk_becomes_rgb_with_a_note(decode: Decode) -> None:
    decoded = decode(encode(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95))

    red, green, blue = middle(decoded.clean)
    assert red > 200
    assert max(green, blue) < 60
    assert decoded.note is not None
    assert "CMYK" in decoded.note


@pytest.mark.parametrize("color_type", [0, 2])
def test_16_bits_are_scaled_not_clipped(decode: Decode, color_type: int) -> None:
    decoded = decode(sixteen_bit_png(color_type, 40_000))

    assert middle(decoded.clean) == (156, 156, 156)  # 40,000 / 257 = 155.6


@pytest.mark.parametrize("color_type", [4, 6])
def test_16_bits_with_alpha_are_laid_over_white(decode: Decode, color_type: int) -> None:
    decoded = decode(sixteen_bit_png(color_type, 0))

    assert middle(decoded.clean) == (255, 255, 255)


def test_palettes_become_colors(decode: Decode) -> None:
    image = Image.new("RGB", (32, 32), (200, 30, 40)).quantize(4)
    assert image.mode == "P"

    assert middle(decode(encode(image)).clean) == (200, 30, 40)


def test_bilevel_and_gray_become_rgb(decode: Decode) -> None:
    assert middle(decode(encode(Image.new("1", (32, 32), 1))).clean) == (255, 255, 255)
    assert middle(decode(encode(Image.new("L", (32, 32), 77), "JPEG")).clean) == (77, 77, 77)


def test_transparent_parts_become_white_with_a_note(decode: Decode) -> None:
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    half = Image.new("RGBA", (32, 32), (0, 0, 0, 128))

    assert middle(decode(encode(image)).clean) == (255, 255, 255)
    decoded = decode(encode(half, "WEBP", lossless=True))
    assert middle(decoded.clean) == (127, 127, 127)
    assert decoded.note == "Transparent areas are trained as white, or excluded with “Masked loss”."
    assert decoded.measured["has_transparency"] is True
    with Image.open(decoded.clean) as clean, Image.open(decoded.thumbnail) as thumbnail:
        assert clean.getchannel("A").getextrema() == (128, 128)
        assert thumbnail.mode == "RGB"


def test_a_transparent_palette_entry_becomes_white(decode: Decode) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 10, 200, 10])

    assert middle(decode(encode(image, transparency=1)).clean) == (255, 255, 255)


def test_an_opaque_alpha_channel_is_dropped_silently(decode: Decode) -> None:
    decoded = decode(encode(Image.new("RGBA", (32, 32), (9, 8, 7, 255))))

    assert middle(decoded.clean) == (9, 8, 7)
    assert decoded.note is None


def test_colors_are_converted_to_srgb_by_their_profile(decode: Decode) -> None:
    red, _, blue = middle(decode(wide_gamut((250, 10, 10))).clean)

    assert blue > 200 > 60 > red


def test_a_broken_profile_is_passed_over(decode: Decode) -> None:
    broken = encode(Image.new("RGB", (16, 16), "red"), icc_profile=b"no profile at all")

    assert middle(decode(broken).clean) == (255, 0, 0)


def test_a_jpeg_with_previews_behind_it_is_its_first_picture(decode: Decode) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    decoded = decode(encode(frames[0], "MPO", save_all=True, append_images=frames[1:]))

    assert decoded.format == "JPEG"
    assert middle(decoded.clean)[0] > 200


def test_processes_start_when_first_needed_and_end_with_the_decoder(
    tmp_path: Path,
) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(picture())
    with ImageDecoder(processes=1) as decoder:
        assert decoder._idle == []
        decoder.decode(source, tmp_path)
        decoder.decode(source, tmp_path)
        (process,) = decoder._idle
        assert process.answered == 2
    assert process._process.returncode is not None
    with pytest.raises(RuntimeError, match="closed"):
        decoder.decode(source, tmp_path)


def test_a_picture_that_kills_its_process_is_refused_and_the_next_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text(
        "import json, os, sys\n"
        f"sys.path.insert(0, {str(Path(decoding.__file__).parent)!r})\n"
        "import decoding\n"
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    if b'deadly' in open(request['source'], 'rb').read():\n"
        "        os.abort()\n"
        "    print(json.dumps(decoding.answer(request)), flush=True)\n"
    )
    monkeypatch.setattr(images, "PROGRAM", deadly)
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(picture())
    bad.write_bytes(picture() + b"deadly")

    with ImageDecoder(processes=1) as decoder:
        for _ in range(2):
            assert decoder.decode(good, tmp_path).width == 64
            with pytest.raises(ImageRefused, match="crashed the decoder"):
                decoder.decode(bad, tmp_path)
        assert decoder.decode(good, tmp_path).width == 64


def test_a_picture_that_takes_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = tmp_path / "endless.py"
    endless.write_text("import sys\nsys.stdin.readline()\nwhile True: pass\n")
    monkeypatch.setattr(images, "PROGRAM", endless)
    source = tmp_path / "a.png"
    source.write_bytes(picture())

    with (
        ImageDecoder(timeout=0.2) as decoder,
        pytest.raises(ImageRefused, match="took too long"),
    ):
        decoder.decode(source, tmp_path)


def test_a_process_killed_while_it_waited_costs_no_picture(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(picture())
    with ImageDecoder(processes=1) as decoder:
        decoder.decode(source, tmp_path)
        os.kill(decoder._idle[0]._process.pid, signal.SIGKILL)

        assert decoder.decode(source, tmp_path).width == 64


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limits of this kind")
def test_the_process_runs_under_limits_and_without_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRUSHWORK_PASSWORD", "secret")
    source = tmp_path / "a.png"
    source.write_bytes(picture())
    with ImageDecoder(processes=1) as decoder:
        decoder.decode(source, tmp_path)
        process = Path("/proc") / str(decoder._idle[0]._process.pid)
        limits = (process / "limits").read_text()
        assert f"Max address space         {decoding.MEMORY_LIMIT}" in limits
        assert f"Max file size             {decoding.OUTPUT_LIMIT}" in limits
        cpu = next(line for line in limits.splitlines() if line.startswith("Max cpu time"))
        assert decoding.CPU_LIMIT <= int(cpu.split()[3]) <= decoding.CPU_LIMIT + 5
        assert b"secret" not in (process / "environ").read_bytes()


def test_too_much_memory_is_a_refusal(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(picture())
    request = {"source": str(source), "clean": str(tmp_path / "c")}
    request |= {"thumbnail": "t", "small": "s"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "decode", _raise(MemoryError()))
        assert "too much memory" in decoding.answer(request)["refused"]


def test_a_full_disk_is_a_507(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "full.py"
    full.write_text("import sys\nsys.stdin.readline()\nprint('{\"full\": true}', flush=True)\n")
    monkeypatch.setattr(images, "PROGRAM", full)
    source = tmp_path / "a.png"
    source.write_bytes(picture())

    with ImageDecoder() as decoder, pytest.raises(StorageFullError, match="disk is full"):
        decoder.decode(source, tmp_path)


def test_the_decoder_says_so_when_the_disk_is_full(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(picture())
    request = {"source": str(source), "clean": "/dev/full"}
    request |= {"thumbnail": "/dev/full", "small": "/dev/full"}

    assert decoding.answer(request) == {"full": True}


def test_many_threads_share_the_processes(decoder: ImageDecoder, tmp_path: Path) -> None:
    sizes: list[tuple[int, int]] = []

    def one(number: int) -> None:
        source = tmp_path / f"{number}.png"
        source.write_bytes(picture(size=(20 + number, 20)))
        decoded = decoder.decode(source, tmp_path)
        sizes.append((number, decoded.width))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(sizes) == [(number, 20 + number) for number in range(12)]
    assert len(decoder._idle) <= 2


def _raise(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail
