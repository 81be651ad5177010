import csv
import json

import numpy as np
import pytest

from kerastl.errors import DataError, WeightsError
from kerastl.results.lineage import ChainArm, backbone_changed_warning, compare_arms, lineage_of

RECIPE = {"name": "bit", "phases": [{"name": "head", "freeze_depth": 1, "method": "probe"}]}


def write_run(folder, content, **kept):
    folder.mkdir(parents=True)
    (folder / "model.keras").write_bytes(content)
    (folder / "labels.txt").write_text("a\nb\n")
    (folder / "recipe.json").write_text(json.dumps({"recipe": RECIPE, **kept}))
    (folder / "metrics.json").write_text(json.dumps({"test": {"accuracy": 0.5}}))
    return str(folder)


def test_a_lineage_grows_by_the_run(tmp_path):
    assert lineage_of("MobileNetV2") == []
    first = write_run(tmp_path / "1", b"1", data={"data": "x"}, lineage=[])
    (found,) = lineage_of(first)
    assert found["model"] == first
    assert found["data"] == {"data": "x"}
    assert found["num_classes"] == 2
    assert (found["measure"], found["score"]) == ("accuracy", 0.5)
    assert len(found["sha256"]) == 64
    second = write_run(tmp_path / "2", b"2", lineage=[found])
    assert [step["model"] for step in lineage_of(second)] == [first, second]
    (tmp_path / "alone.keras").write_bytes(b"3")
    (alone,) = lineage_of(str(tmp_path / "alone.keras"))
    assert set(alone) == {"model", "sha256"}
    with pytest.raises(WeightsError, match="no earlier model"):
        lineage_of(str(tmp_path / "none.keras"))


def test_a_backbone_that_was_trained_again_is_told(tmp_path):
    first = write_run(tmp_path / "1", b"1", lineage=[])
    second = tmp_path / "2"
    write_run(second, b"2", lineage=lineage_of(first))
    recipe = second / "recipe.json"
    assert backbone_changed_warning(recipe, first) is None
    assert backbone_changed_warning(recipe, "MobileNetV2") is None
    (tmp_path / "1" / "model.keras").write_bytes(b"other")
    assert "trained again since" in backbone_changed_warning(recipe, first)


def write_answers(folder, right, labels=None):
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps({"recipe": RECIPE}))
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "path", "label", "answer"])
        for index, each in enumerate(right):
            label = "a" if labels is None else labels[index]
            writer.writerow([index, f"{index}.png", label, label if each else "z"])
    return str(folder)


def arms_of(tmp_path, *rights):
    return [
        ChainArm(str(count), write_answers(tmp_path / str(count), right), count, 1, 1, 10, 1.0)
        for count, right in enumerate(rights)
    ]


def test_what_each_step_brought(tmp_path):
    rng = np.random.default_rng(0)
    straight = rng.random(400) < 0.6
    one, two = straight | (rng.random(400) < 0.3), straight | (rng.random(400) < 0.6)
    found = compare_arms(arms_of(tmp_path, straight, one, two), ["first", "second"])
    assert found["num_images"] == 400
    assert [arm["score"] for arm in found["arms"]] == [
        pytest.approx(right.mean()) for right in (straight, one, two)
    ]
    assert [row["step"] for row in found["brought"]] == ["first", "second"]
    assert found["brought"][1]["difference"] == pytest.approx(two.mean() - one.mean())
    low, high = found["paid"]["interval"]
    assert low < two.mean() - straight.mean() < high
    assert found["paid"]["verdict"].endswith("helped.")
    json.dumps(found)


@pytest.mark.parametrize(
    ("flips", "verdict"),
    [
        ([0] * 60, "did harm"),
        ([0] * 15 + [1] * 15, "too few test images"),
        ([], "no relevant difference"),
    ],
)
def test_verdicts(tmp_path, flips, verdict):
    straight = np.arange(1000) % 2 == 0
    chain = straight.copy()
    for place, better in enumerate(flips):
        chain[2 * place + bool(better)] = bool(better)
    found = compare_arms(arms_of(tmp_path, straight, chain), ["first"])
    assert verdict in found["paid"]["verdict"]


def test_other_images_are_refused(tmp_path):
    arms = arms_of(tmp_path, [True, False])
    other = write_answers(tmp_path / "other", [True, False], labels=["a", "b"])
    with pytest.raises(DataError, match="different test images"):
        compare_arms([*arms, ChainArm("x", other, 1, 1, 1, 1, 1.0)], ["first"])
    with pytest.raises(DataError, match="--measure"):
        compare_arms([*arms, ChainArm("x", str(tmp_path / "none"), 1, 1, 1, 1, 1.0)], ["first"])
