import csv
import json
import shutil

import numpy as np
import pytest
from sklearn.model_selection import cross_val_predict

from kerastl.data.load import load_data
from kerastl.errors import ArgumentError
from kerastl.results.label_issues import (
    find_label_issues,
    groups_over_parts,
    out_of_fold,
    suspicious,
)
from tests.command import kerastl


def made_wrong(labels, share, num_classes, seed=0):
    """Return labels of which some are wrong, and which those are."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < share
    others = (labels + rng.integers(1, num_classes, len(labels))) % num_classes
    return np.where(wrong, others, labels), wrong


def by_hand(probabilities, labels):
    """Count as confident learning does, one image after another."""
    classes = range(probabilities.shape[1])
    usual = [probabilities[labels == c, c].mean() if (labels == c).any() else 2 for c in classes]
    counted = 0
    for row, label in zip(probabilities, labels, strict=True):
        reached = [c for c in classes if row[c] >= usual[c]]
        counted += bool(reached) and max(reached, key=lambda c: row[c]) != label
    own = [row[label] for row, label in zip(probabilities, labels, strict=True)]
    order = sorted(range(len(labels)), key=lambda place: own[place])
    return [place for place in order if probabilities[place].argmax() != labels[place]][:counted]


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_the_rule_against_one_written_out(num_classes, share):
    rng = np.random.default_rng(num_classes)
    truth = np.arange(140) % num_classes
    probabilities = rng.dirichlet(np.ones(num_classes), 140)
    probabilities[np.arange(140), truth] += 1.5
    probabilities /= probabilities.sum(1, keepdims=True)
    labels, _ = made_wrong(truth, share, num_classes)
    assert suspicious(probabilities, labels).tolist() == by_hand(probabilities, labels)


def test_an_image_that_is_alone_in_its_class_is_not_judged():
    probabilities = np.array([[0.9, 0.1, 0.0]] * 4 + [[0.1, 0.9, 0.0]] * 4 + [[0.9, 0.1, 0.0]])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2])
    found = suspicious(probabilities, labels)
    assert 3 in found
    assert 8 not in found


def test_copies_never_judge_each_other():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 30)).astype("float32"), np.arange(60) % 2
    twice, both = np.concatenate([x, x]), np.concatenate([labels, labels])
    alone, seen = (
        (out_of_fold(twice, both, 2, groups, 0).argmax(1) == both).mean()
        for groups in (np.tile(np.arange(60), 2), np.arange(120))
    )
    assert alone < seen - 0.1  # noise is learnt only from a copy


def test_copies_in_different_parts_are_one_group():
    """Byte for byte, and brightened; groups of a part stay, and other images are apart."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (45, 8, 8, 3)).astype("uint8")
    images = coarse.repeat(5, 1).repeat(5, 2)
    pairs = {"test": (np.concatenate([images[:1], images[1:2] + 3, images[40:]]), np.arange(7) % 2)}
    data = load_data((images[:40], np.arange(40) % 2), validation_fraction=0.2, **pairs)
    parts = [data.train, data.validation, data.test]
    pixels = np.concatenate([next(iter(part.images(40, len(part)))) for part in parts])
    place = {tuple(one[0, 0].tolist()): number for number, one in enumerate(pixels[:40])}
    groups = groups_over_parts(parts)
    assert groups[place[tuple(images[0, 0, 0].tolist())]] == groups[40]
    assert groups[place[tuple(images[1, 0, 0].tolist())]] == groups[41]
    assert len(np.unique(groups)) == 45
    within = [len(np.unique(part.groups())) for part in parts]
    assert sum(within) == 47


def test_made_wrong_labels_come_first():
    """No worse than scikit-learn's own out-of-fold probabilities of a logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(1)
    truth = np.arange(300) % 3
    x = (rng.normal(size=(300, 20)) + 2.0 * np.eye(3, 20)[truth]).astype("float32")
    labels, wrong = made_wrong(truth, 0.1, 3)
    ours = out_of_fold(x, labels, 3, np.arange(300), 0)
    theirs = cross_val_predict(LogisticRegression(), x, labels, method="predict_proba")
    own = [1 - each[np.arange(300), labels] for each in (ours, theirs)]
    ours_ap, theirs_ap = (average_precision_score(wrong, each) for each in own)
    assert ours_ap > theirs_ap - 0.03


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dark and bright pictures, of which three are in the wrong folder."""
    from PIL import Image

    root = tmp_path_factory.mktemp("labels") / "photos"
    rng = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (root / name).mkdir(parents=True)
    for number in range(48):
        bright = number % 2
        pixels = rng.integers(0, 90, (40, 40, 3)) + 150 * bright
        name = "bright" if bool(bright) != (number in (4, 9, 20)) else "dark"
        Image.fromarray(pixels.astype("uint8")).save(root / name / f"{number:02}.png")
    return root


def test_wrong_folders_are_found(folder, tiny_backbone, tmp_path):
    data = load_data(str(folder))
    found = find_label_issues(data, tiny_backbone())
    assert {one.path.rsplit("/")[-1] for one in found.issues[:3]} == {"04.png", "09.png", "20.png"}
    first = found.issues[0]
    assert first.label != first.suggested
    assert first.confidence < first.suggested_confidence
    assert first.neighbours <= 2
    assert repr(found).startswith("LabelIssues(")
    assert found.num_images == 48
    found.write_csv(tmp_path / "look.csv")
    rows = list(csv.DictReader((tmp_path / "look.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == [one.path for one in found.issues]


def test_scan_lists_labels_and_changes_nothing(folder, tiny_backbone, tmp_path):
    """Of data with errors only once `--fix` has written what to skip."""
    photos = shutil.copytree(folder, tmp_path / "photos")
    (photos / "dark" / "00.png").write_bytes(b"no picture")
    tiny_backbone().save(tmp_path / "tiny.keras")
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    page, table = tmp_path / "page.html", tmp_path / "findings.csv"
    scan = ("scan", photos, "--labels", tmp_path / "tiny.keras")
    assert "labels were not checked" in kerastl(*scan, status=2).stderr
    told = kerastl(*scan, "--fix", "--page", page, "--csv", table, "--json")
    kinds = [one for one in json.loads(told.stdout)["findings"] if one["kind"] == "label"]
    assert {one["path"].rsplit("/")[-1] for one in kinds} >= {"04.png", "09.png", "20.png"}
    assert "looks like" in kinds[0]["reason"]
    text = page.read_text()
    assert "not trained on them" in text
    assert text.index('<section id="labels"') < text.index("04.png") < text.index('id="map"')
    assert "looks like" in table.read_text()
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before


@pytest.mark.parametrize("option", [("--page", "page.html"), ("--weights", "random")])
def test_scan_says_what_an_option_needs(folder, option):
    told = kerastl("scan", folder, *option, status=2)
    assert f"`{option[0]}` needs `--labels BACKBONE`" in told.stderr


def test_a_page_of_a_sample_has_all_that_look_wrong(folder, tiny_backbone, tmp_path, monkeypatch):
    found = find_label_issues(load_data(str(folder)), tiny_backbone())
    monkeypatch.setattr("kerastl.results.code_page.MOST_IMAGES", 10)
    found.write_page(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    labels = text[text.index('<section id="labels"') : text.index('<section id="map"')]
    assert all(one.path.rsplit("/")[-1] in labels for one in found.issues)
    assert "A random sample of" in text


def test_other_tasks_and_single_classes_get_an_error():
    images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), "uint8")
    data = load_data((images, np.linspace(0, 1, 8)), task="regression")
    with pytest.raises(ArgumentError, match="needs data with one class per image"):
        find_label_issues(data, "MobileNetV2", weights="random", image_size=32)
    with pytest.raises(ArgumentError, match="at least two classes have several images"):
        out_of_fold(np.ones((3, 2), "float32"), np.array([0, 0, 1]), 2, np.arange(3), 0)
