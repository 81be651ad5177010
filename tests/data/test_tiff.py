"""TIFF files of other channels than RGB, in the layouts that scanners and satellites write."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

import kerastl
from kerastl.data import decode
from kerastl.data.examine import Asked, examine_files
from kerastl.data.options import PixelRules
from kerastl.data.scan import MAX_PIXELS
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import ArgumentError
from tests import command

RNG = np.random.default_rng(0)
GRAY = {"photometric": "minisblack"}


def last(values):
    return np.moveaxis(values, -1, 0)


LAYOUTS = {  # how tifffile is called, of values (height, width, channels)
    "contiguous": lambda v: (v, GRAY | {"planarconfig": "contig"}),
    "planes": lambda v: (last(v), GRAY | {"planarconfig": "separate", "compression": "lzw"}),
    "pages": lambda v: (last(v), GRAY),
    "pages of one channel each, as ImageJ": lambda v: (last(v), {"imagej": True}),
    "an array as it is": lambda v: (v, {}),
    "tiles of a large file": lambda v: (
        v,
        GRAY | {"planarconfig": "contig", "tile": (16, 16), "compression": "zlib", "bigtiff": True},
    ),
    "RGB and more": lambda v: (
        v,
        {"photometric": "rgb", "extrasamples": ["unspecified"] * (v.shape[-1] - 3)},
    ),
    "big-endian": lambda v: (v, GRAY | {"planarconfig": "contig", "byteorder": ">"}),
}


def write(file, values, layout="contiguous"):
    array, how = LAYOUTS[layout](values)
    tifffile.imwrite(file, array, **how)


def examined(path, **asked):
    (found,) = examine_files([str(path)], Asked(MAX_PIXELS, **asked))
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "dtype"), [(4, "uint8"), (5, "uint16"), (13, "uint16")])
def test_channels_are_read_from_every_layout(tmp_path, layout, channels, dtype):
    values = RNG.integers(0, 4096 if dtype == "uint16" else 256, (20, 33, channels)).astype(dtype)
    write(tmp_path / "a.tif", values, layout)

    report = examined(tmp_path / "a.tif", channels=channels, bit_depth=12)
    data = (tmp_path / "a.tif").read_bytes()
    pixels = decode.pillow_pixels(data, 12, channels)

    expected = values if dtype == "uint8" else np.rint(values * (255 / 4095))
    np.testing.assert_array_equal(pixels, expected)
    assert (report.height, report.width, report.channels) == (20, 33, channels)
    assert report.peak == (0 if dtype == "uint8" else values.max())
    assert f"TIFF of {channels} channels; an exported model accepts" in report.all_remarks()[0]
    if dtype == "uint16":
        np.testing.assert_array_equal(decode.pillow_pixels(data, None, channels), values >> 8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_channel_is_left_out_in_silence(tmp_path, layout):
    """Where RGB is asked for: a file of others is refused, or what is left out is told."""
    write(tmp_path / "a.tif", RNG.integers(0, 256, (20, 33, 5)).astype("uint8"), layout)

    report = examined(tmp_path / "a.tif")

    told = getattr(report, "reason", None) or "\n".join(report.all_remarks())
    assert "channels" in told
    assert "pass `channels" in told


def test_colours_of_more_than_eight_bits_are_scaled(tmp_path):
    values = RNG.integers(0, 4096, (20, 33, 3)).astype("uint16")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")

    data = (tmp_path / "a.tif").read_bytes()

    np.testing.assert_array_equal(decode.pillow_pixels(data, 12), np.rint(values * (255 / 4095)))
    assert examined(tmp_path / "a.tif").peak == values.max()


def test_a_scan_turned_by_its_tag_is_upright(tmp_path):
    values = RNG.integers(0, 256, (20, 33, 4)).astype("uint8")
    tag = (274, "H", 1, 6, True)
    tifffile.imwrite(
        tmp_path / "a.tif", values, **GRAY, planarconfig="contig", extratags=[tag], metadata=None
    )
    data = (tmp_path / "a.tif").read_bytes()
    np.testing.assert_array_equal(decode.pillow_pixels(data, None, 4), np.rot90(values, -1))


def encoded(values, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **(GRAY | how))
    return file.getvalue()


X = np.zeros((20, 33, 5))
PNG = io.BytesIO()
Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(PNG, "PNG")
REFUSED = {
    "a PNG": (PNG.getvalue(), {}, "not a TIFF; only TIFF files can have 5 channels"),
    "too few": (
        encoded(X[..., :4].astype("uint8"), planarconfig="contig"),
        {}, "a TIFF with 4 channels, not 5: pass `channels=4` if all have them",
    ),
    "floats": (
        encoded(X.astype("float32"), planarconfig="contig"),
        {}, "pixels of float32 have no known range: pass `bit_depth`",
    ),
    "no numbers": (
        encoded(X.astype("float32") * np.nan, planarconfig="contig"),
        {"bit_depth": 1}, "pixels that are not finite",
    ),
    "cut": (encoded(X.astype("uint16"), planarconfig="contig")[:3000], {}, "TIFF"),
    "only a beginning": (b"II*\0", {}, "a broken header"),
    "a promise": (
        encoded(X.astype("uint8"), planarconfig="contig", compression="zlib"),
        {"max_pixels": 200}, "more pixels than max_pixels=200",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    data, how, reason = REFUSED[name]
    (tmp_path / "a.tif").write_bytes(data)

    (found,) = examine_files(
        [str(tmp_path / "a.tif")], Asked(**({"max_pixels": MAX_PIXELS, "channels": 5} | how))
    )

    assert reason in found.reason


def test_without_the_extra(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", X.astype("uint8"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert "kerastl[tiff]" in examined(tmp_path / "a.tif").reason
    with pytest.raises(ArgumentError, match=r"needs tifffile.*pip install 'kerastl\[tiff\]'"):
        load_unlabelled([str(tmp_path)], rules=PixelRules(channels=5))


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Images that only their last of six channels tells apart, and a table of them."""
    root = tmp_path_factory.mktemp("fields")
    rows = ["path,label"]
    for number in range(40):
        values = RNG.integers(0, 1000, (36, 34, 6)).astype("uint16")
        values[..., 5] += 3000 * (number % 2)
        name = f"{'ab'[number % 2]}/{number}.tif"
        (root / name).parent.mkdir(exist_ok=True)
        write(root / name, values, list(LAYOUTS)[number // 2 % 3])
        rows.append(f"{name},{'ab'[number % 2]}")
    (root / "t.csv").write_text("\n".join(rows))
    return root


def test_folders_and_tables(fields):
    for source in (fields, fields / "t.csv"):
        data = kerastl.load_data(source, channels=6, bit_depth=12)

        images = next(iter(data.test.images(32))).numpy()
        assert images.shape == (8, 32, 32, 6)
        assert (images[..., 5].mean((1, 2)) > 128).tolist() == (data.test.labels == 1).tolist()
        assert any("images have 6 channels: the first layer" in text for text in data.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["widened", "of six channels"])
def test_a_run(fields, tiny_backbone, tmp_path, own):
    keras.utils.set_random_seed(0)
    backbone = tiny_backbone()
    if own:
        backbone = kerastl.build_transfer_model(backbone, 2, channels=6).get_layer("backbone")
    backbone.save(tmp_path / "tiny.keras")

    told = command.kerastl(
        "train", fields, "--channels", 6, "--bit-depth", 12, "--backbone", tmp_path / "tiny.keras",
        "--scenario", "large_different", "--epochs", 1, "--output", tmp_path / "run",
    )  # fmt: skip

    assert "images have 6 channels" in told.stderr
    assert "6 channels" in (tmp_path / "run/report.html").read_text()
    run = kerastl.load_run(tmp_path / "run")
    files = sorted(fields.glob("?/*.tif"))
    answers = run.predict(files).outputs.argmax(1)
    assert (answers == [int(file.parent.name == "b") for file in files]).mean() > 0.9
    told = command.kerastl("evaluate", tmp_path / "run", fields, "--json")
    assert "used 32 of these 40 images for training or validation" in told.stderr
    command.kerastl("predict", tmp_path / "run", files[0])
    served = tf.saved_model.load(str(tmp_path / "run" / "saved_model" / "1")).signatures
    assert sorted(served) == ["embed", "serving_default"]
