"""Pictures and archives, good and hostile, made in memory."""

import functools
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageCms

Color = str | tuple[int, ...]


def encode(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """The picture as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def picture(
    file_format: str = "PNG", *, size: tuple[int, int] = (64, 48), color: Color = "teal"
) -> bytes:
    """A plain picture of one color."""
    return encode(Image.new("RGB", size, color), file_format)


def photo(*, size: tuple[int, int] = (64, 48), quality: int = 90) -> bytes:
    """A JPEG with enough detail that a cut in the middle cuts pixels."""
    noise = Image.effect_noise(size, 60).convert("RGB")
    return encode(noise, "JPEG", quality=quality)


def rotated_photo() -> bytes:
    """A JPEG stored lying, red at its left, whose EXIF says: turn a quarter clockwise."""
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # the left of what is stored is up
    exif[0x010F] = "A camera with a secret"
    return encode(image, "JPEG", exif=exif, quality=95)


def animated(file_format: str) -> bytes:
    """Two frames of 32 × 32: GIF, WEBP, or PNG (an APNG)."""
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    return encode(frames[0], file_format, save_all=True, append_images=frames[1:])


def png(width: int, height: int, *, bits: int = 8, color_type: int = 2, data: bytes = b"") -> bytes:
    """A PNG with these rows (each with its filter byte), however little they fit the header."""
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def huge_png() -> bytes:
    """20,000 × 20,000 gray pixels of one bit (400 megapixels) in about 50 KB."""
    return png(20_000, 20_000, bits=1, color_type=0, data=bytes((1 + 2_500) * 20_000))


def sixteen_bit_png(color_type: int, value: int) -> bytes:
    """16 × 16 pixels of 16 bits; color type 0 gray, 2 RGB, 4 gray with alpha, 6 RGBA."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    row = b"\0" + struct.pack(">H", value) * channels * 16
    return png(16, 16, bits=16, color_type=color_type, data=row * 16)


def huge_webp() -> bytes:
    """A header that says 16,383 × 16,383 pixels, and nothing behind it."""
    body = struct.pack("<4sI", b"VP8X", 10) + bytes(4)
    body += (16_382).to_bytes(3, "little") * 2
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def wide_gamut(color: tuple[int, int, int]) -> bytes:
    """A PNG whose profile swaps red and blue: an sRGB profile with two tags exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    swapped = bytes(profile).replace(b"s\0R\0G\0B", b"o\0d\0d\0!").replace(b"sRGB", b"odd!")
    return encode(Image.new("RGB", (16, 16), color), "PNG", icc_profile=swapped)


SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'
HTML = b"\n<!DOCTYPE html><html><body><script>alert(1)</script></body></html>"


def archive(
    members: Mapping[str, bytes] | Sequence[tuple[str | zipfile.ZipInfo, bytes]],
    *,
    compression: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """A zip of these files."""
    pairs = members.items() if isinstance(members, Mapping) else members
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as packed:
        for name, data in pairs:
            packed.writestr(name, data)
    return buffer.getvalue()


def symlink(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    """A member that is a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def central_directory(packed: bytes) -> int:
    """Where the first record of the central directory starts."""
    return packed.index(b"PK\1\2")


def patched(packed: bytes, offset: int, value: bytes) -> bytes:
    """The archive with other bytes at a place."""
    return packed[:offset] + value + packed[offset + len(value) :]


def encrypted(packed: bytes) -> bytes:
    """The archive with its first member flagged as encrypted."""
    return patched(packed, central_directory(packed) + 8, b"\x01\x00")


@functools.cache
def crowded_archive(entries: int, *, confess: bool = True) -> bytes:
    """A zip of many empty files; unless it confesses, its end record tells of one only."""
    local, central = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L")
    files, records, offset = [], [], 0
    for number in range(entries):  # as zipfile would, which takes ten times as long
        name = f"{number}.png".encode()
        facts = (20, 0, 0, 0, 33, 0, 0, 0, len(name), 0)
        files.append(local.pack(b"PK\3\4", *facts) + name)
        made_on = 0o600 << 16, offset
        records.append(central.pack(b"PK\1\2", 3 << 8 | 20, *facts, 0, 0, 0, *made_on) + name)
        offset += len(files[-1])
    directory = b"".join(records)
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, *[min(entries, 0xFFFF)] * 2, len(directory), offset, 0
    )
    if entries > 0xFFFF:
        sizes = entries, entries, len(directory), offset
        end = (
            struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, *sizes)
            + struct.pack("<4sLQL", b"PK\6\7", 0, offset + len(directory), 1)
            + end
        )
    data = b"".join(files) + directory + end
    if confess:
        return data
    return patched(data, data.rindex(b"PK\5\6") + 8, struct.pack("<HH", 1, 1))
