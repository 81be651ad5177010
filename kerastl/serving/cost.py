"""Computes the decoding cost of an encoded image from its header."""

import re
import struct

USUAL_SCANS = 10
"""Scans of a progressive JPEG; with more of them, each ten cost as much as one decoding."""
TRANSPARENT = 5
"""How many opaque pixels take as much memory as one of a PNG that is laid over white."""
UNBOUNDED = 2**62
"""The cost of a file with too many parts to count."""

_MOST_JPEG_PARTS, _MOST_GIF_PARTS = 10_000, 200_000
_HEAD = 2**16  # bytes of a PNG that are looked at
_NO_FILL = re.compile(rb"[^\xff]")
_WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xD8))
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers that a size follows


def decode_cost(data: bytes) -> int:
    """Return the pixels that a decoder goes through, 0 where the bytes are no image.

    Those of a JPEG count again for every ten scans, those of a PNG with transparency five times;
    those of all frames of a GIF are decoded to show the first.
    """
    head = data[:64].ljust(64, b"\0")
    if head.startswith(b"\xff\xd8"):
        return _jpeg_pixels(data) * max(USUAL_SCANS, data.count(b"\xff\xda")) // USUAL_SCANS
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _area(">II", head, 16) * (TRANSPARENT if _is_transparent(data) else 1)
    if head.startswith(b"GIF8"):
        return _gif_pixels(data)
    if head.startswith(b"BM"):
        return _area("<ii", head, 18)
    if head.startswith(b"RIFF"):
        return _webp_pixels(head)
    return 0


def _is_transparent(data: bytes) -> bool:
    """Return whether a PNG is decoded with a fourth channel, as `decode_image` tells it."""
    head = data[:_HEAD]
    pixels = head.find(b"IDAT")
    return pixels < 0 or bool(head[25] & 4) or 0 <= head.find(b"tRNS") < pixels


def _area(layout: str, data: bytes, at: int) -> int:
    first, second = struct.unpack_from(layout, data, at)
    return int(abs(first * second))


def _jpeg_pixels(data: bytes) -> int:
    """Return the size that the first frame header gives, found as libjpeg finds it."""
    at = 2
    for _ in range(_MOST_JPEG_PARTS):
        at = data.find(b"\xff", at)
        found = _NO_FILL.search(data, at) if at >= 0 else None
        if found is None or found.end() + 7 > len(data):
            return 0
        at, kind = found.end(), found[0][0]
        if kind in _FRAMES:
            return _area(">HH", data, at + 3)
        if kind not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2])
    return UNBOUNDED


def _gif_pixels(data: bytes) -> int:
    """Return the pixels of the screen, or of all frames together where those are more."""
    if len(data) < 13:
        return 0
    screen, frames, parts = _area("<HH", data, 6), 0, 0
    at = 13 + _gif_table(data[10])
    while at + 10 <= len(data) and data[at] in b"\x2c\x21" and parts < _MOST_GIF_PARTS:
        is_frame = data[at] == 0x2C
        frames += _area("<HH", data, at + 5) if is_frame else 0
        at += 11 + _gif_table(data[at + 9]) if is_frame else 2
        while data[at : at + 1] not in (b"", b"\0") and parts < _MOST_GIF_PARTS:
            at, parts = at + 1 + data[at], parts + 1
        at, parts = at + 1, parts + 1
    return max(screen, frames) if parts < _MOST_GIF_PARTS else UNBOUNDED


def _gif_table(packed: int) -> int:
    return 3 * 2 ** ((packed & 7) + 1) if packed >= 0x80 else 0


def _webp_pixels(head: bytes) -> int:
    kind = head[8:16]
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return int((width & 0x3FFF) * (height & 0x3FFF))
    if kind == b"WEBPVP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF))
    if kind == b"WEBPVP8X":
        sides = (int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
        return (1 + next(sides)) * (1 + next(sides))
    return 0
