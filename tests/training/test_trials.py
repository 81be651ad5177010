import json

import numpy as np
import pytest

from kerastl.errors import DataError, TrainingError
from kerastl.training.search_result import corrected_for_picking
from kerastl.training.trials import Trial, TrialLog, best_of

SEARCH = {"tuner": "halving", "max_trials": 9, "recipe": {"seed": 0, "name": "x"}, "data": "abc"}


def trial(depth=2, rate=1e-3, epochs=1, right=(True, True, False, True), loss=0.5):
    right = np.array(right)
    return Trial(depth, rate, epochs, "completed", 1.5, float(right.mean()), loss, right)


def failed(depth=0, reason="ResourceExhaustedError: no memory"):
    return Trial(depth, 1e-3, 1, "failed", 0.1, reason=reason)


def test_the_best_is_a_completed_one():
    good, poor = trial(), trial(1, right=(False, True, False, True))
    assert best_of([failed(), poor, good, failed()]) is good


def test_none_completed_is_an_error_with_each_reason():
    with pytest.raises(TrainingError) as error:
        best_of([failed(0), failed(1, "ValueError: odd")])
    assert "None of the 2 trials was completed" in str(error.value)
    assert "depth 0, rate 0.001, 1 epoch: ResourceExhaustedError: no memory" in str(error.value)
    assert "depth 1, rate 0.001, 1 epoch: ValueError: odd" in str(error.value)


def test_the_loss_decides_among_equal_accuracies_alone():
    one_more = trial(right=(True, True, True, True), loss=9.0)
    assert one_more.rank > trial(loss=0.0).rank > trial(loss=0.1).rank
    assert trial().standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_a_log_comes_back_as_it_was(tmp_path):
    log = TrialLog(tmp_path / "search", SEARCH)
    many = trial(right=np.arange(19) % 3 == 0)
    for one in (many, failed(), trial(4, None, 0)):
        log.add(one)
    again = TrialLog(tmp_path / "search", json.loads(json.dumps(SEARCH)))
    assert again.trials == log.trials
    np.testing.assert_array_equal(again.trials[0].image_scores, many.image_scores)
    assert again.find((4, None, 0)) == log.trials[2]
    assert again.find((4, None, 1)) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_what_a_kill_leaves_half_written_is_not_read(tmp_path):
    log = TrialLog(tmp_path, SEARCH)
    log.add(trial())
    (tmp_path / "trials" / ".0001.json.77").write_text('{"freeze_')
    again = TrialLog(tmp_path, SEARCH)
    assert len(again.trials) == 1
    (tmp_path / "search.json").rename(tmp_path / ".search.json.77")
    (tmp_path / "trials" / "0000.json").unlink()
    (tmp_path / "trials" / ".0001.json.77").unlink()
    (tmp_path / "trials").rmdir()
    assert TrialLog(tmp_path, SEARCH).trials == []


def test_a_trial_that_was_removed_leaves_the_others(tmp_path):
    log = TrialLog(tmp_path, SEARCH)
    for depth in range(3):
        log.add(trial(depth))
    (tmp_path / "trials" / "0001.json").unlink()
    again = TrialLog(tmp_path, SEARCH)
    again.add(trial(1))
    assert [one.freeze_depth for one in TrialLog(tmp_path, SEARCH).trials] == [0, 2, 1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_trials": 12}, "Its max_trials is 9, not 12."),
        ({"data": "def"}, 'Its data is "abc", not "def".'),
        ({"recipe": {"seed": 1, "name": "x"}}, "Its recipe.seed is 0, not 1."),
        ({"data": "def", "max_trials": 1}, 'data is "abc", not "def"; its max_trials is 9, not 1'),
    ],
)
def test_another_search_is_refused_with_what_differs(tmp_path, changes, told):
    TrialLog(tmp_path, SEARCH)
    with pytest.raises(DataError, match="contains a different search") as error:
        TrialLog(tmp_path, SEARCH | changes)
    assert told in str(error.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(DataError, match=r"contains files but no search: \['thesis.txt'\]"):
        TrialLog(tmp_path, SEARCH)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"freeze_depth": 1}'])
def test_a_damaged_trial_is_named(tmp_path, text):
    TrialLog(tmp_path, SEARCH).add(trial())
    (tmp_path / "trials" / "0000.json").write_text(text)
    with pytest.raises(DataError, match="0000.json"):
        TrialLog(tmp_path, SEARCH)


def test_the_best_of_many_guesses_is_a_guess():
    rng = np.random.default_rng(0)
    guesses = [trial(d, right=rng.random(60) < 0.5) for d in range(40)]
    assert best_of(guesses).score > 0.62
    corrected = corrected_for_picking(guesses)
    assert corrected.score == pytest.approx(0.5, abs=0.06)
    assert 0.03 < corrected.standard_error < 0.15


def test_one_trial_alone_was_not_picked():
    alone = trial(right=np.arange(200) % 5 > 0)
    assert corrected_for_picking([alone]).score == pytest.approx(0.8, abs=0.005)
    sure = [trial(0, right=np.ones(30, bool)), trial(1, right=np.arange(30) % 2 == 0)]
    assert corrected_for_picking(sure) == (1.0, 0.0)
    assert corrected_for_picking([trial(right=[True])]) == (1.0, 0.0)


def test_of_two_workers_that_ended_the_same_trial_the_first_counts(tmp_path):
    chief, one, other = (TrialLog(tmp_path, SEARCH, name) for name in ("chief", "one", "other"))
    one.add(trial(loss=0.4))
    other.add(trial(loss=0.5))
    other.add(trial(depth=1))
    assert [(found.freeze_depth, found.loss) for found in chief.read_new()] == [(2, 0.4), (1, 0.5)]
    assert chief.read_new() == []
    assert TrialLog(tmp_path, SEARCH).trials == chief.trials
    one.add(failed())
    other.add(trial(depth=0))
    assert [found.status for found in chief.read_new()] == ["failed", "completed"]
