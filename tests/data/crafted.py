"""Crafted files and what becomes of each: the rows of bad input, as a table to read.

`FILES` maps a name to the bytes and their outcome. `Good` files decode with the operation that
trains; `Bad` ones are named with a reason. Nothing here is read from a disk.
"""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
PHOTO = np.kron(RNG.integers(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
"""48 x 72 pixels."""


@dataclass(frozen=True)
class Good:
    """Readable: the format that the bytes have, who decodes them, and what is remarked."""

    format: str
    by_pillow: bool = False
    remarks: tuple[str, ...] = ()
    size: tuple[int, int] = (48, 72)


@dataclass(frozen=True)
class Bad:
    """Not readable, for a reason that begins so."""

    reason: str


def encoded(kind, image=None, **options):
    buffer = io.BytesIO()
    (photo() if image is None else image).save(buffer, kind, **options)
    return buffer.getvalue()


def photo(mode="RGB"):
    return Image.fromarray(PHOTO).convert(mode)


def rgba():
    return Image.fromarray(np.concatenate([PHOTO, PHOTO[..., :1]], -1))


def deep():
    return Image.fromarray(RNG.integers(0, 65_536, (48, 72)).astype(np.uint16))


def animated(kind):
    frames = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1])]
    return encoded(kind, frames[0], save_all=True, append_images=frames[1:])


def rotated(kind, orientation=6, **options):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encoded(kind, exif=tags, **options)


def flipped(data, after, offset):
    """The bytes with one of them changed, `offset` behind the first `after`."""
    at = data.index(after) + offset
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def chunk(kind, data):
    framed = kind + data
    return struct.pack(">I", len(data)) + framed + struct.pack(">I", zlib.crc32(framed))


def png_of(width, height, pixels=b"", depth=8, color=2):
    """A PNG with a header of its own and these compressed pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def bomb():
    """An honest PNG of 20000 x 20000 black pixels in one bit each: 218 kB, 1.2 GB decoded."""
    return png_of(20_000, 20_000, bytes(2_501) * 20_000, depth=1, color=0)


def huge_jpeg():
    """A JPEG whose frame header promises 20000 x 20000 pixels."""
    data = encoded("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 20_000, 20_000) + data[at + 4 :]


JPEG, PNG, GIF, BMP, WEBP = (encoded(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"))
_UPRIGHT = "rotated by the EXIF orientation"
_FIRST = "animated; only the first frame is used"


_TOO_LARGE = Bad("more pixels than max_pixels=89,000,000")


def _damaged(kind):
    return Bad(f"a damaged or incomplete {kind}: ")


_CUT = {
    "cut.jpg": (JPEG[:-200], _damaged("JPEG")),
    "cut_in_half.jpg": (JPEG[: len(JPEG) // 2], Bad("a broken header: Truncated File Read")),
    "no_end_marker.jpg": (JPEG[:-2], _damaged("JPEG")),
    "only_a_start.jpg": (JPEG[:2], Bad("not a known image format")),
    "only_a_header.jpg": (JPEG[:40], Bad("a broken header: Truncated File Read")),
    "cut.png": (PNG[:-90], _damaged("PNG")),
    "no_end_chunk.png": (PNG[:-12], _damaged("PNG")),
    "only_a_header.png": (PNG[:20], Bad("a broken header: Truncated File Read")),
    "no_pixels.png": (png_of(9, 9), _damaged("PNG")),
    "cut.gif": (GIF[:-100], _damaged("GIF")),
    "cut.bmp": (BMP[:-100], _damaged("BMP")),
    "cut.webp": (WEBP[:-100], Bad("a broken header: ")),
    "cut.tiff": (encoded("TIFF")[:1000], _damaged("TIFF")),
    "cut.avif": (encoded("AVIF")[:-200], _damaged("AVIF")),
}
_NO_IMAGES = {
    "empty.jpg": (b"", Bad("an empty file")),
    "spaces.jpg": (b" \n" * 40, Bad("an empty file")),
    "zeros.png": (bytes(4096), Bad("not a known image format")),
    "garbage.jpg": (b"asdf" * 99, Bad("not a known image format")),
    "page.jpg": (b"<!doctype html><html></html>", Bad("HTML or XML, not an image")),
    "drawing.svg": (b"<?xml version='1.0'?><svg/>", Bad("HTML or XML, not an image")),
    "pointer.jpg": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        Bad("a Git LFS pointer: fetch the file with `git lfs pull`"),
    ),
    "archive.jpg": (b"PK\x03\x04" + bytes(60), Bad("not a known image format")),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(40), Bad("HEIC: convert it to JPEG or PNG")),
    "phone_too.jpg": (b"\0\0\0\x18ftypmif1" + bytes(40), Bad("HEIC: convert it to JPEG or PNG")),
    "page.ps": (b"%!PS-Adobe-3.0 EPSF-3.0\n", Bad("not a known image format")),
}
_DAMAGED = {
    "checksum.png": (flipped(PNG, b"IDAT", 20), _damaged("PNG")),
    "header_checksum.png": (flipped(PNG, b"IHDR", 5), Bad("not a known image format")),
    # Without tables of its own a JPEG means the standard ones, which these are.
    "no_table.jpg": (JPEG.replace(b"\xff\xc4", b"\xff\xfe"), Good("JPEG")),
    "flipped_scan.jpg": (flipped(JPEG, b"\xff\xda", 60), Good("JPEG")),  # only a manifest can tell
    "trailing_bytes.jpg": (JPEG + b"more", Good("JPEG")),
    "trailing_bytes.png": (PNG + b"more", Good("PNG")),
}
_LARGE = {
    "bomb.png": (bomb(), _TOO_LARGE),
    "promises.png": (png_of(20_000, 20_000), _TOO_LARGE),
    "large.png": (
        png_of(9_500, 9_500, bytes(1_189) * 9_500, depth=1, color=0),
        Bad("9500 x 9500: more pixels than max_pixels=89,000,000"),
    ),
    "promises.jpg": (huge_jpeg(), _TOO_LARGE),
    "overflow.png": (png_of(2**31 - 1, 2**31 - 1), _TOO_LARGE),
    "no_width.png": (png_of(0, 9), Bad("not a known image format")),
}
_MISNAMED = {
    "png.jpg": (PNG, Good("PNG", False, ("PNG, although the suffix is .jpg",))),
    "gif.jpg": (GIF, Good("GIF", False, ("GIF, although the suffix is .jpg",))),
    "bmp.jpg": (BMP, Good("BMP", False, ("BMP, although the suffix is .jpg",))),
    "webp.jpg": (WEBP, Good("WEBP", False, ("WEBP, although the suffix is .jpg",))),
}
_UNUSUAL_NAMES = {
    "a.jfif": (JPEG, Good("JPEG")),
    "a.JPE": (JPEG, Good("JPEG")),
    "no_ending": (JPEG, Good("JPEG")),
    "a.webp": (WEBP, Good("WEBP")),
    "a.tiff": (encoded("TIFF"), Good("TIFF", True)),
    "a.avif": (encoded("AVIF"), Good("AVIF", True)),
    "a.jp2": (encoded("JPEG2000"), Good("JPEG2000", True)),
    "a.ppm": (encoded("PPM"), Good("PPM", True)),
}
_KINDS = {
    "gray.jpg": (encoded("JPEG", photo("L")), Good("JPEG")),
    "cmyk.jpg": (encoded("JPEG", photo("CMYK")), Good("JPEG")),
    "progressive.jpg": (encoded("JPEG", progressive=True), Good("JPEG")),
    "gray.png": (encoded("PNG", photo("L")), Good("PNG")),
    "gray_alpha.png": (encoded("PNG", photo("LA")), Good("PNG")),
    "palette.png": (encoded("PNG", photo("P")), Good("PNG")),
    "one_bit.png": (encoded("PNG", photo("1")), Good("PNG")),
    "rgba.png": (encoded("PNG", rgba()), Good("PNG")),
    "deep.png": (encoded("PNG", deep()), Good("PNG")),
    "deep.tiff": (encoded("TIFF", deep()), Good("TIFF", True)),
    "float.tiff": (
        encoded("TIFF", photo("F")),
        Bad("a damaged or incomplete TIFF: pixels of 32 bits (mode 'F') have no known range"),
    ),
    "one_bit.bmp": (encoded("BMP", photo("1")), Good("BMP", True)),
    "rgba.bmp": (encoded("BMP", rgba()), Good("BMP")),
    "rgba.webp": (encoded("WEBP", rgba()), Good("WEBP", True)),
    "animated.webp": (
        animated("WEBP"),
        Bad("an animated WebP: save one of its frames as PNG"),
    ),
    "animated.gif": (animated("GIF"), Good("GIF", False, (_FIRST,))),
    "animated.png": (animated("PNG"), Good("PNG", False, (_FIRST,))),
    "one_pixel.png": (encoded("PNG", Image.new("RGB", (1, 1))), Good("PNG", size=(1, 1))),
    "one_pixel.jpg": (encoded("JPEG", Image.new("RGB", (1, 1))), Good("JPEG", size=(1, 1))),
    "thread.png": (encoded("PNG", Image.new("RGB", (900, 1))), Good("PNG", size=(1, 900))),
}
_TURNED = {
    "turned.jpg": (rotated("JPEG"), Good("JPEG", False, (_UPRIGHT,), (72, 48))),
    "mirrored.jpg": (rotated("JPEG", 2), Good("JPEG", False, (_UPRIGHT,))),
    "turned.png": (rotated("PNG"), Good("PNG", False, (_UPRIGHT,), (72, 48))),
    "turned.webp": (rotated("WEBP"), Good("WEBP", True, (_UPRIGHT,), (72, 48))),
    "turned.tiff": (rotated("TIFF"), Good("TIFF", True, (_UPRIGHT,), (72, 48))),
    "no_turn.jpg": (rotated("JPEG", 9), Good("JPEG")),
}
FILES = {
    **_CUT, **_NO_IMAGES, **_DAMAGED, **_LARGE, **_MISNAMED, **_UNUSUAL_NAMES, **_KINDS, **_TURNED
}  # fmt: skip
"""The bytes of each file, and what becomes of it."""
