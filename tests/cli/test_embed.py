import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import kerastl as library
from kerastl.errors import KerastlError
from kerastl.results import code_page
from kerastl.results.code_page import sample_places
from kerastl.results.neighbours import neighbour_accuracy
from tests.browsing import check_page, watched_page
from tests.command import kerastl

HOSTILE = ["<img src=x onerror=alert(1)>", '{{ 7*7 }} $a_{$ "quoted" & |*']


@pytest.fixture(scope="session")
def written(finished_run, run_once):
    """What the command says, and the folder of what it wrote, with the images.

    Two classes of hostile names, dark and bright; the last to test of each is in the wrong folder.
    """

    def prepare(folder):
        rng = np.random.default_rng(0)
        for part, count in (("train", 12), ("val", 6)):
            for name, lows in zip(HOSTILE, ((0, 150), (150, 0)), strict=True):
                place = folder / "images" / part / name
                place.mkdir(parents=True)
                for index in range(count):
                    low = lows[part == "val" and index == count - 1]
                    pixels = rng.integers(low, low + 100, (40, 30, 3)).astype("uint8")
                    Image.fromarray(pixels).save(place / f"{index:02}.png")
        return [
            "embed", folder / "images", "--backbone", finished_run.backbone, "--at", "relu_1",
            "--output", folder / "new" / "codes.npz", "--page", folder / "new" / "codes.html",
            "--json",
        ]  # fmt: skip

    folder, told = run_once("codes_of_images", prepare)
    return json.loads(told.stdout), folder / "new"


@pytest.fixture
def folder(written):
    return written[1].parent / "images"


@pytest.fixture
def network(finished_run):
    """Options that name the tiny network."""
    return ["--backbone", finished_run.backbone]


def test_the_file_holds_the_codes_of_all_parts(written, folder, finished_run):
    told, output = written
    data = library.load_data(folder, validation_fraction=0.0)
    expected = library.extract_codes(
        str(finished_run.backbone), [data.train, data.test], at="relu_1"
    )
    with np.load(output / "codes.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["codes"], expected, rtol=1e-4, atol=1e-5)
        assert file["class_names"].tolist() == HOSTILE
        assert file["labels"].tolist() == [*data.train.labels, *data.test.labels]
        assert file["split"].tolist() == ["train"] * 24 + ["test"] * 12
        assert file["paths"].tolist() == [*data.train.paths, *data.test.paths]
    assert told["num_images"] == 36
    assert told["shape"] == list(expected.shape[1:]) == [12]
    assert told["rectified"] is True
    assert told["zeros"] == pytest.approx((expected == 0).mean(), abs=1e-3)


def test_neighbours_find_the_images_in_the_wrong_folder(written):
    told, _ = written
    page = told["page"]
    assert page["neighbours"]["accuracy"] == pytest.approx(34 / 36)
    assert page["neighbours"]["interval"][0] < 34 / 36 < page["neighbours"]["interval"][1]
    assert sorted(row["path"][-6:] for row in page["suspicious"]) == ["05.png", "05.png"]
    assert all(list(row["votes"].values()) == [5] for row in page["suspicious"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(written, browser, scheme, width):
    with watched_page(browser, width, scheme) as (page, told, asked):
        page.goto((written[1] / "codes.html").as_uri())
        assert told == []
        assert [url for url in asked if not url.startswith("data:")] == [page.url]
        for name in ("map", "neighbours", "labels"):
            assert page.locator(f"section#{name} h2").is_visible(), name
            assert page.locator(f"nav a[href='#{name}']").count() == 1
        assert page.locator("#map svg use, #map svg path").count() >= 36
        pictures = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
        assert len(pictures) == 6 * (12 + 2)
        assert all(width > 0 and text for width, text in pictures)
        assert page.locator(".key li").all_inner_texts() == [f"● {name} 18" for name in HOSTILE]
        assert page.locator("script").count() == 0
        check_page(page, width)
        identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(identifiers) == len(set(identifiers))


def test_npy_and_a_table_for_people(folder, tmp_path):
    """Of a network by its name, with the embedded weights."""
    arguments = [
        "embed", folder / "val", "--weights", "embedded", "--image-size", 32, "--output",
        tmp_path / "codes.npy",
    ]  # fmt: skip
    table = kerastl(*arguments).stdout
    assert "(rectified)" in table
    assert "the pooled top" in table
    with open(tmp_path / "codes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert np.load(tmp_path / "codes.npy").shape == (12, 1280)
    assert [row["label"] for row in rows] == [HOSTILE[0]] * 6 + [HOSTILE[1]] * 6
    assert {row["split"] for row in rows} == {"train"}  # of a folder without parts
    assert "does not overwrite it" in kerastl(*arguments, status=2).stderr


def test_parquet_of_images_without_labels(folder, network, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    images = tmp_path / "images"
    shutil.copytree(folder / "val" / HOSTILE[0], images)
    page = tmp_path / "codes.html"
    stdout, _ = kerastl(
        "embed", images, *network, "--at", "relu_3", "--pool", "none", "--page", page, "--output",
        tmp_path / "codes.parquet", "--json",
    )  # fmt: skip
    told = json.loads(stdout)
    assert (told["shape"], told["class_names"]) == ([2, 2, 24], [])
    assert told["page"]["neighbours"] is None
    table = parquet.read_table(tmp_path / "codes.parquet")
    assert table["label"].to_pylist() == [None] * 6
    assert table["path"].to_pylist() == sorted(map(str, images.iterdir()))
    assert "The images have no labels" in page.read_text()
    stdout, _ = kerastl(
        "embed", folder, *network, "--unlabelled", "--output", tmp_path / "all.npz", "--json"
    )
    assert json.loads(stdout)["num_images"] == 36


def test_a_run_and_a_layer_inside_it(folder, finished_run, tmp_path):
    output = tmp_path / "codes.npz"
    arguments = ["embed", folder / "val", "--run", finished_run.directory, "--output", output]
    kerastl(*arguments, "--at", "backbone/conv_2", "--pool", "max")
    assert np.load(output)["codes"].shape == (12, 16)
    output.unlink()
    assert "Did you mean 'head'" in kerastl(*arguments, "--at", "heads", status=2).stderr
    assert "not both" in kerastl(*arguments, "--weights", "random", status=2).stderr
    arguments[3] = tmp_path / "none"
    assert "is not a finished run" in kerastl(*arguments, status=2).stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "codes.csv"], "must end in .npz, .npy, .parquet"),
        (["--output", "codes.npz", "--pool", "mean"], "`pool` must be one of"),
        (["--output", "codes.npz", "--backbone", "VGG61"], "Did you mean 'VGG19' or 'VGG16'"),
        (["--output", "codes.npz", "NETWORK", "--at", "relu_33"], "Did you mean 'relu_3'"),
    ],
)
def test_what_cannot_be_meant(folder, network, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [part for each in arguments for part in (network if each == "NETWORK" else [each])]
    assert message in kerastl("embed", folder, *given, status=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_pages_that_cannot_be(folder, network, tmp_path):
    image, page = folder / "val" / HOSTILE[0] / "00.png", tmp_path / "codes.html"
    arguments = [*network, "--output", tmp_path / "codes.npz"]
    told = kerastl("embed", image, *arguments, "--page", page, status=2).stderr
    assert "A page needs at least two images. Received: 1 image" in told
    page.write_text("mine")
    assert "already" in kerastl("embed", folder, *arguments, "--page", page, status=2).stderr
    kerastl("embed", image, *arguments)
    assert np.load(tmp_path / "codes.npz")["codes"].shape == (1, 24)


def test_a_page_of_a_sample_says_so(monkeypatch, tmp_path):
    assert sample_places(9, 5).tolist() == list(range(9))
    monkeypatch.setattr(code_page, "MOST_IMAGES", 6)
    places = sample_places(40, 5, seed=3)
    assert len(places) == 6
    assert sorted(set(places.tolist())) == places.tolist()
    assert len(sample_places(40, 2**26)) == 2  # of codes that are very long
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype("uint8")
    data = library.load_data((images, np.arange(6) % 2), test_fraction=0, validation_fraction=0)
    codes = np.random.default_rng(0).normal(size=(6, 4))
    path = tmp_path / "page.html"
    library.write_codes_page(path, codes, data.train, class_names=data.class_names, num_images=40)
    assert "A random sample of 6 images was compared" in path.read_text()
    with pytest.raises(KerastlError, match="a row for each image. Received: 5 rows and 6 images"):
        library.write_codes_page(path, codes[:5], data.train, class_names=data.class_names)


@pytest.mark.slow
def test_neighbours_of_real_photographs(real_photographs, imagenet_weights, monkeypatch):
    """Ants and bees: the classes are told apart by neighbours alone."""
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(imagenet_weights.parent))
    data = library.load_data(real_photographs, validation_fraction=0.0)
    codes = library.extract_codes("MobileNetV2(alpha=0.35)", data.test)
    found = library.nearest_neighbours(codes)
    measured = neighbour_accuracy(data.test.labels, found, 2)
    assert measured["num_images"] == 153
    assert measured["accuracy"] > 0.8
