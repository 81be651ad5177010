import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import kerastl as library
from kerastl.cli import app as application
from kerastl.errors import KerastlError
from kerastl.results import code_page
from kerastl.results.code_page import sample_places

HOSTILE = ["<img src=x onerror=alert(1)>", '{{ 7*7 }} $a_{$ "quoted" & |*']
SMALL = ["--weights", "embedded", "--image-size", 32]


@pytest.fixture(scope="module", autouse=True)
def _keep_tensorflow_as_it_is():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
        yield


def kerastl(*arguments, status=0):
    """Run the command; return what it printed, or the text of its error."""
    result = CliRunner().invoke(application.app, [str(argument) for argument in arguments])
    if isinstance(result.exception, KerastlError):
        assert result.exception.exit_status == status, result.exception
        return str(result.exception)
    assert result.exit_code == status, (result.output, result.exception)
    return result.output if status else result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of hostile names, dark and bright; the last of each is in the wrong folder."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 6)):
        for name, lows in zip(HOSTILE, ((0, 150), (150, 0)), strict=True):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                low = lows[part == "val" and index == count - 1]
                pixels = rng.integers(low, low + 100, (40, 30, 3)).astype("uint8")
                Image.fromarray(pixels).save(root / part / name / f"{index:02}.png")
    return root


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory):
    """What the command says, and the folder of what it wrote."""
    output = tmp_path_factory.mktemp("codes") / "new"
    told = kerastl(
        "embed", folder, *SMALL, "--at", "block_3_expand_relu", "--output", output / "codes.npz",
        "--page", output / "codes.html", "--json",
    )  # fmt: skip
    return json.loads(told), output


def test_the_file_holds_the_codes_of_all_parts(written, folder):
    told, output = written
    data = library.load_data(folder, validation_fraction=0.0)
    expected = library.extract_codes(
        "MobileNetV2(alpha=0.35)", [data.train, data.test], at="block_3_expand_relu",
        weights="embedded", image_size=32,
    )  # fmt: skip
    with np.load(output / "codes.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["codes"], expected, rtol=1e-4, atol=1e-5)
        assert file["class_names"].tolist() == HOSTILE
        assert file["labels"].tolist() == [*data.train.labels, *data.test.labels]
        assert file["split"].tolist() == ["train"] * 24 + ["test"] * 12
        assert file["paths"].tolist() == [*data.train.paths, *data.test.paths]
    assert told["num_images"] == 36
    assert told["shape"] == list(expected.shape[1:])
    assert told["rectified"] is True
    assert told["zeros"] == pytest.approx((expected == 0).mean(), abs=1e-3)


def test_neighbours_find_the_images_in_the_wrong_folder(written):
    told, _ = written
    page = told["page"]
    assert page["neighbours"]["accuracy"] == pytest.approx(34 / 36)
    assert page["neighbours"]["interval"][0] < 34 / 36 < page["neighbours"]["interval"][1]
    assert sorted(row["path"][-6:] for row in page["suspicious"]) == ["05.png", "05.png"]
    assert all(list(row["votes"].values()) == [5] for row in page["suspicious"])


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip(f"there is no {' or '.join(names)} on this machine")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=options)
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_in_a_browser(written, browser, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    told, asked = [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: told.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
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
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(identifiers) == len(set(identifiers))
    context.close()


def test_npy_and_a_table_for_people(folder, tmp_path):
    table = kerastl("embed", folder / "val", *SMALL, "--output", tmp_path / "codes.npy")
    assert "(rectified)" in table
    assert "the pooled top" in table
    with open(tmp_path / "codes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert np.load(tmp_path / "codes.npy").shape == (12, 1280)
    assert [row["label"] for row in rows] == [HOSTILE[0]] * 6 + [HOSTILE[1]] * 6
    assert {row["split"] for row in rows} == {"train"}  # of a folder without parts
    again = kerastl("embed", folder / "val", *SMALL, "--output", tmp_path / "codes.npy", status=2)
    assert "never written over" in again


def test_parquet_of_images_without_labels(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    images = tmp_path / "images"
    shutil.copytree(folder / "val" / HOSTILE[0], images)
    page = tmp_path / "codes.html"
    told = json.loads(
        kerastl(
            "embed", images, *SMALL, "--at", "out_relu", "--pool", "none", "--page", page,
            "--output", tmp_path / "codes.parquet", "--json",
        )
    )  # fmt: skip
    assert (told["shape"], told["class_names"]) == ([1, 1, 1280], [])
    assert told["page"]["neighbours"] is None
    table = parquet.read_table(tmp_path / "codes.parquet")
    assert table["label"].to_pylist() == [None] * 6
    assert table["path"].to_pylist() == sorted(map(str, images.iterdir()))
    assert "The images have no labels" in page.read_text()
    all_of_it = kerastl(
        "embed", folder, *SMALL, "--unlabelled", "--output", tmp_path / "all.npz", "--json"
    )
    assert json.loads(all_of_it)["num_images"] == 36


def test_a_run_and_a_layer_inside_it(folder, tmp_path):
    model = library.build_transfer_model("MobileNetV2(alpha=0.35)", 2, weights="embedded")
    model.save(tmp_path / "model.keras")
    output = tmp_path / "codes.npz"
    arguments = ["embed", folder / "val", "--run", tmp_path, "--output", output]
    kerastl(*arguments, "--at", "backbone/block_3_project", "--pool", "max")
    assert np.load(output)["codes"].shape == (12, 16)
    output.unlink()
    assert "Did you mean 'head'" in kerastl(*arguments, "--at", "heads", status=2)
    assert "not both" in kerastl(*arguments, "--weights", "random", status=2)
    arguments[3] = tmp_path / "none"
    assert "is no finished run" in kerastl(*arguments, status=2)
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "codes.csv"], "must end in .npz, .npy, .parquet"),
        (["--output", "codes.npz", "--pool", "mean"], "`pool` must be one of"),
        (["--output", "codes.npz", "--backbone", "VGG61"], "Did you mean 'VGG19' or 'VGG16'"),
        (
            ["--output", "codes.npz", *map(str, SMALL), "--at", "out_rely"],
            "Did you mean 'out_relu'",
        ),
    ],
)
def test_what_cannot_be_meant(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in kerastl("embed", folder, *arguments, status=2)
    assert list(tmp_path.iterdir()) == []


def test_pages_that_cannot_be(folder, tmp_path):
    image, page = folder / "val" / HOSTILE[0] / "00.png", tmp_path / "codes.html"
    arguments = ["--output", tmp_path / "codes.npz", "--page", page]
    told = kerastl("embed", image, *SMALL, *arguments, status=2)
    assert "A page compares images with one another. Received: 1 image" in told
    page.write_text("mine")
    assert "already" in kerastl("embed", folder, *SMALL, *arguments, status=2)
    kerastl("embed", image, *SMALL, *arguments[:2])
    assert np.load(tmp_path / "codes.npz")["codes"].shape == (1, 1280)


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
    assert "Compared were 6 of them" in path.read_text()
    with pytest.raises(KerastlError, match="a row for each image. Received: 5 rows and 6 images"):
        library.write_codes_page(path, codes[:5], data.train, class_names=data.class_names)


def test_neighbours_of_real_photographs(real_photographs, imagenet_weights, monkeypatch):
    """Ants and bees: the classes are told apart by neighbours alone."""
    monkeypatch.setenv("KERASTL_WEIGHTS_DIR", str(imagenet_weights.parent))
    data = library.load_data(real_photographs, validation_fraction=0.0)
    codes = library.extract_codes("MobileNetV2(alpha=0.35)", data.test)
    from kerastl.results.neighbours import neighbour_accuracy

    found = library.nearest_neighbours(codes)
    measured = neighbour_accuracy(data.test.labels, found, 2)
    assert measured["num_images"] == 153
    assert measured["accuracy"] > 0.8
