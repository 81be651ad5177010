import io
import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kerastl.data import scan

PHOTO = np.kron(np.random.default_rng(0).integers(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(
    np.uint8
)


def encoded(kind, image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(PHOTO)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_flipped_byte(data, after, offset):
    at = data.index(after) + offset
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def huge_png():
    """A PNG whose header promises 20000 x 20000 pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    framed = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    rest = encoded("PNG")[33:]
    return b"\x89PNG\r\n\x1a\n" + framed + rest


def animated(kind):
    frames = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1])]
    return encoded(kind, frames[0], save_all=True, append_images=frames[1:])


def rotated_jpeg():
    tags = Image.Exif()
    tags[0x0112] = 6
    return encoded("JPEG", exif=tags)


def rgba():
    return Image.fromarray(np.concatenate([PHOTO, PHOTO[..., :1]], -1))


BAD = {
    "empty.jpg": (b"", "an empty file"),
    "garbage.jpg": (b"asdf" * 99, "not an image of a known format"),
    "page.jpg": (b"<!doctype html><html></html>", "HTML or XML, not an image"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC: convert it to JPEG or PNG"),
    "cut.jpg": (encoded("JPEG")[:-200], "a damaged or incomplete JPEG: jpeg::Uncompress failed"),
    "no_end.jpg": (encoded("JPEG")[:-2], "a damaged or incomplete JPEG: jpeg::Uncompress failed"),
    "cut.png": (encoded("PNG")[:-90], "a damaged or incomplete PNG: Invalid PNG data"),
    "checksum.png": (
        with_flipped_byte(encoded("PNG"), b"IDAT", 20),
        "a damaged or incomplete PNG: Invalid PNG data",
    ),
    "only_a_header.png": (encoded("PNG")[:20], "Truncated File Read"),
    "cut.gif": (encoded("GIF")[:-100], "a damaged or incomplete GIF: "),
    "cut.tiff": (encoded("TIFF")[:1000], "a damaged or incomplete TIFF: "),
    "huge.png": (huge_png(), "more pixels than max_pixels=89,000,000"),
    "animated.webp": (animated("WEBP"), "an animated WebP: save one of its frames as PNG"),
}

GOOD = {
    "a.jpg": (encoded("JPEG"), "JPEG", False, ()),
    "a.jfif": (encoded("JPEG"), "JPEG", False, ()),
    "no_ending": (encoded("JPEG"), "JPEG", False, ()),
    "cmyk.jpg": (encoded("JPEG", Image.fromarray(PHOTO).convert("CMYK")), "JPEG", False, ()),
    "png.jpg": (encoded("PNG"), "PNG", False, ("not what the ending .jpg says, but PNG",)),
    "animated.gif": (
        animated("GIF"),
        "GIF",
        False,
        ("animated, of which the first frame is used",),
    ),
    "rotated.jpg": (rotated_jpeg(), "JPEG", False, ("turned upright by the EXIF orientation",)),
    "a.webp": (encoded("WEBP"), "WEBP", False, ()),
    "rgba.webp": (encoded("WEBP", rgba()), "WEBP", True, ()),
    "a.tiff": (encoded("TIFF"), "TIFF", True, ()),
    "a.avif": (encoded("AVIF"), "AVIF", True, ()),
    "one_bit.bmp": (encoded("BMP", Image.fromarray(PHOTO).convert("1")), "BMP", True, ()),
    "gray.png": (encoded("PNG", Image.fromarray(PHOTO).convert("L")), "PNG", False, ()),
    "one_pixel.png": (encoded("PNG", Image.new("RGB", (1, 1))), "PNG", False, ()),
}


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    paths = []
    for name, (data, *_) in {**BAD, **GOOD}.items():
        (folder / name).write_bytes(data)
        paths.append(str(folder / name))
    return scan.scan_files(paths)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_a_reason(scanned, name):
    reasons = {pathlib.Path(path).name: reason for path, reason in scanned[1]}

    assert reasons[name].startswith(BAD[name][1])
    assert "\n" not in reasons[name]
    assert "{{" not in reasons[name]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_reported(scanned, name):
    report = {pathlib.Path(report.path).name: report for report in scanned[0]}[name]

    assert (report.format, report.needs_pillow, report.remarks) == GOOD[name][1:]
    if name == "rotated.jpg":
        assert (report.height, report.width) == (72, 48)
    elif name != "one_pixel.png":
        assert (report.height, report.width) == (48, 72)


def test_every_file_is_in_one_list_in_its_order(scanned):
    good, bad = scanned

    assert [pathlib.Path(report.path).name for report in good] == list(GOOD)
    assert [pathlib.Path(path).name for path, _ in bad] == list(BAD)


def test_equal_bytes_have_equal_hashes(scanned):
    content = {pathlib.Path(report.path).name: report.content for report in scanned[0]}

    assert content["a.jpg"] == content["a.jfif"] != content["cmyk.jpg"]


def test_max_pixels_is_an_argument(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))

    assert scan.scan_files([str(path)], max_pixels=48 * 72)[1] == []
    assert scan.scan_files([str(path)], max_pixels=48 * 72 - 1)[0] == []


def test_a_missing_file_is_named(tmp_path):
    path = str(tmp_path / "gone.jpg")

    assert scan.scan_files([path]) == ([], [(path, "No such file or directory")])


def test_no_files():
    assert scan.scan_files([]) == ([], [])


def test_a_name_that_is_not_utf_8_works(tmp_path):
    good, bad = (os.fsencode(tmp_path) + name for name in (b"/caf\xe9.jpg", b"/b\xe9d.jpg"))
    pathlib.Path(os.fsdecode(good)).write_bytes(encoded("JPEG"))
    pathlib.Path(os.fsdecode(bad)).write_bytes(b"bad")

    reports, bad_files = scan.scan_files([os.fsdecode(good), os.fsdecode(bad)])

    assert os.fsencode(reports[0].path) == good
    assert bad_files[0].path == f"{tmp_path}/b\\xe9d.jpg"
