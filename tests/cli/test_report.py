import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image

from tests.browsing import check_page, watched_page
from tests.command import kerastl

HOSTILE = ["<img src=x onerror=alert(1)>", '{{ 7*7 }} $a_{$ "quoted" & |*']
SECTIONS = [
    "data", "diagnosis", "recipe", "training", "results", "confusion", "worst", "looks", "again",
]  # fmt: skip


@pytest.fixture(scope="session")
def hostile_run(finished_run, run_once):
    """A folder with `run`, without exports, and its `images`, some of them in the wrong class.

    The names of the classes are hostile.
    """

    def prepare(folder):
        rng = np.random.default_rng(0)
        for part, count in (("train", 20), ("val", 10), ("test", 8)):
            for name, lows in zip(HOSTILE, ((0, 128), (128, 0)), strict=True):
                place = folder / "images" / part / name
                place.mkdir(parents=True)
                for index in range(count):
                    low = lows[part != "train" and index < 2]
                    pixels = rng.integers(low, low + 100, (40, 30, 3)).astype("uint8")
                    Image.fromarray(pixels).save(place / f"{index}.png")
        damaged = folder / "images" / "train" / HOSTILE[0] / "cut.png"
        damaged.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
        return [
            "train", folder / "images", "--backbone", finished_run.backbone, "--epochs", 1,
            "--on-bad", "skip", "--output", folder / "run", "--json",
        ]  # fmt: skip

    folder, _ = run_once("hostile_run", prepare, exports=False)
    return folder


@pytest.fixture
def finished(hostile_run):
    return hostile_run / "run"


@pytest.fixture
def folder(hostile_run):
    return hostile_run / "images"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run without its model, to take parts from."""
    target = tmp_path / "run"
    shutil.copytree(finished, target, ignore=shutil.ignore_patterns("*.keras"))
    return target


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"), (390, "dark"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((1280, "dark"), (390, "light"))),
    ],
)  # fmt: skip
def test_the_page_in_a_browser(finished, browser, scheme, width):
    with watched_page(browser, width, scheme) as (page, told, asked):
        page.goto((finished / "report.html").as_uri())
        assert told == []
        assert [url for url in asked if not url.startswith("data:")] == [page.url]
        for name in SECTIONS:
            assert page.locator(f"section#{name} h2").is_visible(), name
            assert page.locator(f"nav a[href='#{name}']").count() == 1
        assert page.locator("svg").count() >= 4  # one fit has no course to be drawn
        pictures = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.alt])")
        assert len(pictures) >= 8 + 2 * (12 + 6)
        assert all(width > 0 and text for width, text in pictures)
        # What a name says is shown, and does nothing.
        assert page.locator("#results th[scope=row]").all_inner_texts().count(HOSTILE[0]) == 1
        assert page.locator("#confusion").inner_text().count(HOSTILE[1]) >= 2
        assert page.locator("script").count() == 0
        # The page does not scroll sideways, and no table is cut off.
        check_page(page, width)
        cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
        assert page.evaluate(f"{cut}.map(e => e.getAttribute('aria-label'))") == []
        _enlarge(page, width)
        _choose_a_class(page)
        identifiers = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(identifiers) == len(set(identifiers))


def _enlarge(page, width):
    """A click, or Enter, shows a picture as large as the window, and again as it was."""
    summary = page.locator("#worst .zoom summary").first
    small = summary.locator("img").bounding_box()["width"]
    summary.click()
    assert summary.locator("img").bounding_box()["width"] > max(small, 0.5 * min(width, 800))
    summary.press("Enter")
    assert summary.locator("img").bounding_box()["width"] == small


def _choose_a_class(page):
    figures = page.locator("#worst figure")
    number = figures.first.get_attribute("class").removeprefix("of-")
    if page.locator("#worst select").count():
        page.locator("#worst select").select_option(number)
        shown = [one.get_attribute("class") for one in figures.all() if one.is_visible()]
        assert set(shown) == {f"of-{number}"}
        page.locator("#worst select").select_option("")
    assert all(one.is_visible() for one in figures.all())
    assert page.locator("#worst a[href^='file:///']").count() == figures.count()


def test_the_keyboard_reaches_the_content_first(finished, browser):
    page = browser.new_page()
    page.goto((finished / "report.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.url.endswith("#content")
    regions = page.locator("[role=region]")
    assert regions.count() > 3
    for place in range(regions.count()):
        assert regions.nth(place).get_attribute("tabindex") == "0"
    page.close()


def test_the_page_says_what_was_left_out_and_found(finished):
    page = (finished / "report.html").read_text()
    assert "cut.png" in page
    assert "1 skipped files" in page
    metrics = json.loads((finished / "metrics.json").read_text())
    assert f"{100 * metrics['test']['accuracy']:.1f}\N{NO-BREAK SPACE}%" in page
    assert "kerastl train" in page
    assert (finished / "report.html").stat().st_size < 5e6


def test_the_page_is_written_again_without_the_images(run, finished):
    expected = (finished / "report.html").read_text()
    (run / "report.html").unlink()
    answer = json.loads(kerastl("report", run, "--json").stdout)
    assert answer["report"] == str(run / "report.html")
    again = (run / "report.html").read_text()
    assert again.replace(str(run), str(finished)) == expected


@pytest.mark.parametrize("counts", [[100, 10], [100, 11]])
def test_recall_stands_first_where_classes_are_uneven(run, counts):
    found = json.loads((run / "evaluation.json").read_text())
    found["data"]["counts"]["train"] = counts
    (run / "evaluation.json").write_text(json.dumps(found))

    kerastl("report", run)

    page = (run / "report.html").read_text()
    results = page[page.index('<section id="results"') : page.index('<section id="confusion"')]
    first = results.index(">recall<") < results.index(">Accuracy<")
    assert first == (counts == [100, 10])
    assert ("The classes are uneven: check the recall of each" in results) == first


@pytest.mark.parametrize(
    ("gone", "sentence", "section"),
    [
        ("diagnosis.json", "Training report", "diagnosis"),
        ("metrics.json", "The run is not finished", None),
        ("pictures", "worst-00.png is gone", None),
    ],
)
def test_a_run_that_lacks_a_part(run, gone, sentence, section):
    path = run / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    kerastl("report", run)
    page = (run / "report.html").read_text()
    assert sentence in page
    for name in SECTIONS:
        assert (f'<section id="{name}"' in page) == (name != section)
        assert (f'href="#{name}"' in page) == (name != section)


def test_a_run_without_answers_whose_images_are_gone(run, tmp_path):
    (run / "evaluation.json").unlink()
    kept = json.loads((run / "recipe.json").read_text())
    kept["data"]["data"] = str(tmp_path / "moved")
    (run / "recipe.json").write_text(json.dumps(kept))
    kerastl("report", run)
    page = (run / "report.html").read_text()
    assert "the data could not be read again from" in page
    assert "The test images could not be read" in page
    assert not any(f'id="{name}"' in page for name in ("confusion", "worst", "looks"))
    assert "There is no such folder" in kerastl("report", run, "--measure", status=2).stderr


def test_a_run_without_answers_whose_images_are_there(run, finished, folder):
    kept = (run / "evaluation.json").read_text()
    (run / "evaluation.json").unlink()
    shutil.copy(finished / "model.keras", run)
    kerastl("report", run)
    again, before = json.loads((run / "evaluation.json").read_text()), json.loads(kept)
    assert again["confusion"] == before["confusion"]
    assert again["data"]["counts"] == before["data"]["counts"]
    assert len(again["worst"]) == 12
    assert again["calibration"] is None  # its head may have seen the validation images
    shutil.rmtree(run / "pictures")
    other = folder / "test"
    assert "their fingerprint differs" in kerastl("report", run, "--data", other, status=2).stderr


def test_only_an_earlier_model_has_a_lineage(run, finished):
    told = "Lineage of the backbone"
    assert told in (finished / "report.html").read_text()
    kept = json.loads((run / "recipe.json").read_text())
    assert len(kept["lineage"]) == 1
    (run / "recipe.json").write_text(json.dumps({**kept, "lineage": []}))  # as of a name
    kerastl("report", run)
    assert told not in (run / "report.html").read_text()


def test_what_is_no_run(tmp_path):
    assert "is not a run: it has no recipe.json" in kerastl("report", tmp_path, status=2).stderr


@pytest.mark.parametrize("name", ["evaluation.json", "metrics.json", "history.csv"])
def test_damaged_files(run, name):
    (run / name).write_text("{" if name != "history.csv" else "epoch,loss\n1,x\n")
    stderr = kerastl("report", run, status=2).stderr
    assert "Cannot read" in stderr
    assert name in stderr


def test_the_card(finished):
    text = (finished / "MODEL_CARD.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "keras"
    assert front["pipeline_tag"] == "image-classification"
    metrics = json.loads((finished / "metrics.json").read_text())
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(metrics["test"]["accuracy"], abs=1e-6)
    assert "<img" not in text.replace("\\<", "")
    assert "## Limits" in text
    assert "could not be read and were left out" in text


def test_tensorboard_has_the_same(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "logs" / "results"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"test/accuracy", "validation/log_loss", "worst/00", "surest/00"} <= set(tags)
    metrics = json.loads((finished / "metrics.json").read_text())
    value = float(tf.make_ndarray(events.Tensors("test/accuracy")[0].tensor_proto))
    assert value == pytest.approx(metrics["test"]["accuracy"])


def test_explanations_are_pictures(finished, folder, tmp_path):
    images = [folder / "test" / HOSTILE[0] / f"{index}.png" for index in range(2)]
    output = tmp_path / "out"
    told = kerastl("explain", finished, *images, "--output", output, "--json")
    answer = json.loads(told.stdout)["explanations"]
    assert [row["path"] for row in answer] == list(map(str, images))
    for row in answer:
        assert row["label"] in HOSTILE
        assert (row["method"], bool(row["stage"])) == ("grad_cam", True)
        with Image.open(row["overlay"]) as picture:
            assert picture.format == "PNG"
            assert picture.width > 2 * 32  # the image, and what was seen in it
    arguments = ["--class", HOSTILE[1], "--method", "occlusion", "--output", output, "--json"]
    told = kerastl("explain", finished, images[0], *arguments)
    (row,) = json.loads(told.stdout)["explanations"]
    assert (row["label"], row["method"]) == (HOSTILE[1], "occlusion")
    told = kerastl("explain", finished, *images, "--output", output)
    assert "2 images, grad_cam" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "no such"], "`--class` must be one of"),
        (["--method", "gradcam"], "Did you mean 'grad_cam'"),
        (["--stage", "99"], "99"),
    ],
)
def test_what_cannot_be_explained(finished, folder, tmp_path, arguments, message):
    image = folder / "test" / HOSTILE[0] / "0.png"
    told = kerastl("explain", finished, image, *arguments, "--output", tmp_path, status=2)
    assert message in told.stderr


def test_the_fitted_temperature_goes_into_the_export(finished, run, tmp_path):
    fitted = json.loads((finished / "evaluation.json").read_text())["calibration"]["temperature"]
    told = kerastl("export", finished, "--calibrate", "--output", tmp_path / "served", "--json")
    assert json.loads(told.stdout)["temperature"] == pytest.approx(fitted)
    both = kerastl("export", finished, "--calibrate", "--temperature", 2, status=2)
    assert "not both" in both.stderr
    (run / "evaluation.json").unlink()
    assert "has no fitted temperature" in kerastl("export", run, "--calibrate", status=2).stderr


@pytest.mark.slow
def test_whether_it_transferred(run):
    told = kerastl("report", run, "--transfer", "--scratch", "--json")
    found = json.loads((run / "transfer.json").read_text())
    names = [arm["name"] for arm in found["arms"]]
    assert names[0] == "head_only"
    assert names[-1] == "from_scratch"
    assert len(found["differences"]) == len(names) * (len(names) - 1) / 2
    page = (run / "report.html").read_text()
    assert "head only minus from scratch" in page
    assert json.loads(told.stdout)["bytes"] == (run / "report.html").stat().st_size
    kerastl("report", run, "--scratch", status=2)


def contrast(first, second):
    """The contrast of two colours by WCAG, 1 to 21."""

    def luminance(color):
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_from_the_page(finished):
    page = (finished / "report.html").read_text()
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in page.split(":root {")[1:3]]
    assert len(schemes) == 2
    for colors in schemes:
        for name in ("ink", "muted", "first", "second"):
            for ground in ("paper", "raised"):
                assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("metrics.json", {"test": {"accuracy": "1"}}, "`metrics.test.accuracy` must be a list"),
        ("metrics.json", {"timing": None}, "`metrics.timing` must be a table"),
        ("diagnosis.json", {"profile": 3}, "`diagnosis.profile` must be a list. Received: prof"),
        ("evaluation.json", {"worst": [{}]}, r"`evaluation.worst\[0\]` needs answer, file, index"),
        ("evaluation.json", {"confusion": [["1"]]}, r"`evaluation.confusion\[0\]\[0\]` must be an"),
        ("evaluation.json", {"confusion": [[1, 2, 3]]}, "do not fit together: "),
        ("evaluation.json", {"class_names": ["a"] * 9}, "do not fit together: "),
        ("recipe.json", {"recipe": {"name": "x"}}, "A Recipe needs phases"),
        ("recipe.json", {"lineage": [None]}, r"`recipe.lineage\[0\]` must be a table"),
        ("recipe.json", {"data": "x" * 10**6}, "`recipe.data` must be a table"),
        ("trials.json", {"trials": []}, "`trials` needs best, corrected, profile"),
        ("transfer.json", {"arms": 1}, "`transfer` needs differences"),
        ("chain.json", {"arms": [{"name": 1}]}, r"`chain.arms\[0\]` needs epochs, interval, score"),
    ],
)
def test_files_of_another_shape_are_told(run, name, change, told):
    file = run / name
    kept = json.loads(file.read_text()) if file.exists() else {}
    file.unlink(missing_ok=True)
    file.write_text(json.dumps({**kept, **change}))
    stderr = kerastl("report", run, status=2).stderr
    assert re.search(told, stderr), stderr
    assert len(stderr) < 600


def test_a_path_in_a_run_leads_nowhere(run, tmp_path):
    kept = json.loads((run / "evaluation.json").read_text())
    (tmp_path / "secret.png").write_bytes((run / "pictures" / "worst-00.png").read_bytes())
    for row in kept["worst"]:
        row["file"] = "../../secret.png"
    (run / "evaluation.json").write_text(json.dumps(kept))
    kerastl("report", run)
    page = (run / "report.html").read_text()
    assert "picture ../../secret.png is gone" in page
