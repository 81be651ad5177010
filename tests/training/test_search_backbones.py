import dataclasses
import json

import keras
import pytest

from kerastl.advice.rank import RankedBackbone
from kerastl.errors import ArgumentError
from kerastl.training.oracles import SearchSpace
from kerastl.training.search import search
from kerastl.training.search_backbones import worth_searching
from kerastl.training.trial_runner import TrialRunner
from tests.training.small import small_backbone, small_data

SPACE = SearchSpace(freeze_depths=(1, 2), learning_rates=(1e-3,), max_epochs=1)


@pytest.mark.parametrize(
    ("probes", "kept"),
    [
        ([(0.9, 0.0)], "a"),
        ([(0.9, 0.0), (0.81, 0.05), (0.79, 0.05)], "ab"),
        ([(0.9, 0.0), (0.9, 0.01), (0.89, 0.01), (0.89, 0.01)], "abc"),
        ([(0.8, 0.05), (0.9, 0.0), (0.5, 0.1)], "ab"),  # ties go by ImageNet: not always best first
    ],
)
def test_backbones_clearly_below_the_best_are_not_searched(probes, kept):
    blank = RankedBackbone("", 0.0, 0.0, None, 1, 0.1, (8, 8))
    ranked = [
        dataclasses.replace(blank, name=name, probe_score=score, standard_error=error)
        for name, (score, error) in zip("abcd", probes, strict=False)
    ]
    assert "".join(each.name for each in worth_searching(ranked)) == kept


@pytest.fixture(scope="module")
def data():
    return small_data(60, 2, noise=150, contrast=40, validation_fraction=0.3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones")
    for number in range(2):
        keras.utils.set_random_seed(number)
        small_backbone().save(folder / f"{number}.keras")
    return [str(folder / f"{number}.keras") for number in range(2)]


def look(data, files, **changes):
    how = {"space": SPACE, "max_trials": 4, "verbose": False}
    return search(data, files, **{**how, **changes})


def test_several_backbones_share_the_trials(data, files, tmp_path, monkeypatch):
    result = look(data, files, directory=tmp_path / "search")
    searched = [result, *result.others]
    assert {one.name for one in result.backbones} == set(files)
    assert sum(len(one.trials) for one in searched) <= 4
    assert result.best.rank == max(one.best.rank for one in searched)
    assert result.recipe.backbone in files
    assert "was the best of" in result.recipe.reason
    assert result.model.output_shape == (None, 2)
    assert result.history.history["phase"][0] == "head"
    told = json.loads(json.dumps(result.to_dict()))["backbones"]
    assert [one["name"] for one in told if one["best"]] != []
    assert "of all backbones" in result.summary()
    monkeypatch.setattr(TrialRunner, "run", lambda *_: pytest.fail("a trial was run again"))
    again = look(data, files, directory=tmp_path / "search", train_best=False)
    assert again.recipe == result.recipe
    assert again.model is None


def test_what_several_backbones_cannot_have(data, files, monkeypatch):
    with pytest.raises(ArgumentError, match="image_sizes"):
        look(data, files, image_sizes=(32, 48))
    with pytest.raises(ArgumentError, match="at least one"):
        look(data, [])
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner0")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "8765")
    with pytest.raises(ArgumentError, match="one process"):
        look(data, files)
