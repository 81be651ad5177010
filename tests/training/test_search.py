import dataclasses
import json
import math
import pkgutil

import keras
import matplotlib.figure
import numpy as np
import pytest

from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, DataError, TrainingError
from kerastl.frozen.runtime import open_runtime
from kerastl.model.build import build_transfer_model
from kerastl.model.recipes import Phase, Recipe
from kerastl.training import search as searching
from kerastl.training.fine_tune import fine_tune
from kerastl.training.oracles import (
    TUNERS,
    HalvingOracle,
    SearchSpace,
    candidate_depths,
    lowest_too_high,
    make_oracle,
    rung_sizes,
)
from kerastl.training.search import search
from kerastl.training.trial_runner import TrialRunner
from tests.training.small import small_backbone, small_data

SPACE = SearchSpace(freeze_depths=(0, 1, 2), learning_rates=(1e-3, 1e-2), max_epochs=2)
STORED = SearchSpace(freeze_depths=(1, 2), learning_rates=(1e-3, 1e-2), max_epochs=2)
LP_FT = (Phase("head", 2, "probe"), Phase("fine_tune", 1, epochs=2, learning_rate=1e-3))


@pytest.fixture(scope="module")
def data():
    """Two classes of images that are hard to tell apart, so that trials differ."""
    return small_data(80, 2, noise=200, contrast=20, validation_fraction=0.3)


def look(data, **changes):
    """Search over the same small backbone, quietly."""
    keras.utils.set_random_seed(7)
    how = {"space": SPACE, "max_trials": 9, "verbose": False, "train_best": False}
    return search(data, small_backbone(), **{**how, **changes})


def recipe(**changes):
    return Recipe("lp_ft", LP_FT, batch_size=16, **changes)


# ---- which trials, by hand


@pytest.mark.parametrize(
    ("num_stages", "best_stage", "different", "depths"),
    [
        (7, 6, 0.9, (0, 3, 6, 7)),  # the last stage is the peak
        (7, 4, 0.9, (0, 3, 5, 7)),
        (7, 4, 0.1, (3, 5, 7)),  # surely similar: opening everything is no candidate
        (4, 0, 0.5, (0, 1, 4)),
        (2, 1, 0.5, (0, 1, 2)),
        (1, 0, 0.5, (0, 1)),
    ],
)
def test_candidate_depths(num_stages, best_stage, different, depths):
    assert candidate_depths(num_stages, best_stage, different) == depths


def drive(oracle, score, tmp_path):
    """Run an oracle to its end; return (depth, rate, epochs) of each trial."""
    oracle._set_project_dir(tmp_path, "state")
    oracle.verbose = 0
    asked = []
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        values = trial.hyperparameters.values
        asked.append(
            tuple(values.get(n) for n in ("freeze_depth", "learning_rate", "tuner/epochs"))
        )
        found = score(*asked[-1])
        if found is None:
            trial.status = "FAILED"
        else:
            oracle.update_trial(trial.trial_id, {"score": found})
            trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return asked


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_halving_takes_the_best_third_on(tmp_path):
    space = SearchSpace(learning_rates=(1e-4, 3e-4, 1e-3), max_epochs=3)
    oracle = HalvingOracle((0, 3, 6), 7, space, 20, seed=1, num_images=100)
    asked = drive(oracle, lambda d, r, e: 0.1 * d + (r or 0), tmp_path)
    assert asked == [
        (7, None, 0),
        (6, 1e-4, 1), (6, 3e-4, 1), (6, 1e-3, 1),
        (3, 1e-4, 1), (3, 3e-4, 1), (3, 1e-3, 1),
        (0, 1e-4, 1), (0, 3e-4, 1), (0, 1e-3, 1),
        (6, 1e-3, 3), (6, 3e-4, 3), (6, 1e-4, 3),
    ]  # fmt: skip
    assert oracle.num_planned == len(asked)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_a_failed_trial_is_not_taken_on(tmp_path):
    space = SearchSpace(learning_rates=(1e-3,), max_epochs=9)
    oracle = HalvingOracle((0, 3, 6), None, space, 20, seed=1, num_images=100)
    asked = drive(oracle, lambda d, r, e: None if d == 6 else d, tmp_path)
    assert asked == [(6, 1e-3, 1), (3, 1e-3, 1), (0, 1e-3, 1), (3, 1e-3, 3)]


def test_the_first_rung_fits_the_trials_that_are_allowed():
    space = SearchSpace(max_epochs=3)
    assert rung_sizes(9, space) == [9, 3]
    assert rung_sizes(9, dataclasses.replace(space, max_epochs=27)) == [9, 3, 1]
    for most in range(1, 16):
        oracle = HalvingOracle((0, 3, 6), 7, space, most, seed=1, num_images=100)
        assert 1 <= oracle.num_planned <= most
    # Cut by the rates far from the middle: every depth is tried first.
    oracle = HalvingOracle((0, 3, 6), 7, space, 5, seed=1, num_images=100)
    assert [one.freeze_depth for one in oracle._waiting] == [7, 6, 3, 0]


@pytest.mark.parametrize(
    ("scores", "lowest"),
    [
        ({}, math.inf),
        ({1e-3: 0.5}, math.inf),
        ({1e-4: 0.5, 3e-4: 0.41, 1e-3: 0.2}, 1e-3),  # two standard errors on 100 images: 0.1
        ({1e-4: 0.5, 3e-4: 0.39, 1e-3: 0.2}, 3e-4),
        ({1e-4: 0.2, 3e-4: 0.5, 1e-3: 0.41}, math.inf),  # too low is no reason to go no lower
        ({1e-4: 1.0, 3e-4: 0.95}, 3e-4),  # sqrt of 101 / 102 * 1 / 102 / 100 is 0.0099
    ],
)
def test_which_rates_are_too_high(scores, lowest):
    assert lowest_too_high(scores, 100) == lowest


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_a_rate_that_was_too_high_is_not_tried_with_more_stages_open(tmp_path):
    space = SearchSpace(learning_rates=(1e-4, 3e-4, 1e-3, 3e-3), max_epochs=1)
    at_six = {1e-4: 0.2, 3e-4: 0.5, 1e-3: 0.39}
    oracle = HalvingOracle((0, 3, 6), None, space, 20, seed=1, num_images=100)
    planned = oracle.num_planned
    asked = drive(oracle, lambda d, r, e: at_six[r] if d == 6 else 0.41, tmp_path)
    assert asked == [
        (6, 1e-4, 1), (6, 3e-4, 1), (6, 1e-3, 1),
        (3, 1e-4, 1), (3, 3e-4, 1),
        (0, 1e-4, 1), (0, 3e-4, 1),
    ]  # fmt: skip
    assert (planned, oracle.num_planned) == (12, 7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
def test_workers_wait_for_what_the_next_trial_depends_on(tmp_path):
    space = SearchSpace(learning_rates=(1e-4, 3e-4, 1e-3), max_epochs=3)
    oracle = HalvingOracle((0, 3), None, space, 20, seed=1, num_images=100)
    oracle._set_project_dir(tmp_path, "state")
    oracle.verbose = 0
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    assert (first.status, second.status) == ("RUNNING", "RUNNING")
    assert oracle.create_trial("c").status == "IDLE"  # is the second rate too high?
    for trial, tuner in ((first, "a"), (second, "b")):
        oracle.update_trial(trial.trial_id, {"score": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        third = oracle.create_trial("c")
        assert third.status == ("IDLE" if tuner == "a" else "RUNNING")
    assert third.hyperparameters.values["learning_rate"] == 1e-3
    assert oracle.create_trial("a").status == "IDLE"  # is the third one, for the next depth?


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning:sklearn")
@pytest.mark.parametrize("tuner", TUNERS)
def test_equal_scores_and_seeds_give_equal_trials(tmp_path, tuner):
    """A resumed search rests on it. KerasTuner takes 0 for no seed, and draws one each time."""
    asked = [
        drive(
            make_oracle(tuner, (0, 2, 4), 4, SPACE, 7, seed=0, num_images=100),
            lambda depth, rate, epochs: 0.1 * depth + (rate or 0),
            tmp_path / str(turn),
        )
        for turn in range(2)
    ]
    assert asked[0] == asked[1]
    assert len(asked[0]) > 3


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rates": ()}, {"learning_rates": (0.0,)}, {"min_epochs": 0}, {"max_epochs": 0}],
)
def test_a_space_of_nothing_is_refused(wrong):
    with pytest.raises(ArgumentError, match=r"Received"):
        SearchSpace(**wrong)


# ---- one trial


def runtime(store="default"):
    return open_runtime(store, batch_size=recipe().batch_size)


def test_a_trial_is_a_short_fine_tune(data):
    for depth, rate in ((1, 1e-2), (0, 1e-2)):
        keras.utils.set_random_seed(7)
        model = build_transfer_model(small_backbone(), 2)
        runner = TrialRunner(model, data, recipe(), runtime())
        trial = runner.run(depth, rate, 2)
        phases = LP_FT[0], dataclasses.replace(LP_FT[1], freeze_depth=depth, learning_rate=rate)
        keras.utils.set_random_seed(7)
        model = build_transfer_model(small_backbone(), 2)
        whole = dataclasses.replace(recipe(), phases=phases)
        history = fine_tune(model, data, recipe=whole, verbose=False).history
        assert trial.loss == pytest.approx(history["val_loss"][-1], rel=1e-4)
        assert trial.score == pytest.approx(history["val_accuracy"][-1])


@pytest.mark.parametrize("store", ["default", None])
def test_trials_do_not_see_each_other(data, store):
    keras.utils.set_random_seed(7)
    model = build_transfer_model(small_backbone(), 2)
    runner = TrialRunner(model, data, recipe(), runtime(store))
    first = runner.run(1, 1e-2, 2)
    start = [np.array(variable) for variable in model.variables]
    for other in ((0, 1e-1, 1), (2, None, 0), (1, 1e-4, 1)):
        runner.run(*other)
    again = runner.run(1, 1e-2, 2)
    assert again.loss == first.loss
    np.testing.assert_array_equal(again.image_scores, first.image_scores)
    for before, variable in zip(start, model.variables, strict=True):
        np.testing.assert_array_equal(before, np.array(variable))


def test_a_loss_that_is_no_number_fails_that_trial_alone(data):
    keras.utils.set_random_seed(7)
    model = build_transfer_model(small_backbone(), 2)
    wild = dataclasses.replace(LP_FT[1], optimizer="sgd", warmup=0.0, clipnorm=0.0)
    pattern = dataclasses.replace(recipe(), phases=(LP_FT[0], wild))
    runner = TrialRunner(model, data, pattern, runtime())
    good = runner.run(1, 1e-3, 1)
    bad = runner.run(1, 3e38, 1)
    assert (good.status, bad.status) == ("completed", "failed")
    assert "Lower the learning rate" in bad.reason
    assert runner.run(1, 1e-3, 1).loss == good.loss


# ---- a whole search


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("search") / "first"
    return look(data, directory=directory, train_best=True), directory


def test_the_result_tells_all(found):
    result, _ = found
    assert [trial.key for trial in result.trials[:5]] == [
        (2, None, 0), (1, 1e-3, 1), (1, 1e-2, 1), (0, 1e-3, 1), (0, 1e-2, 1)
    ]  # fmt: skip
    assert [trial.epochs for trial in result.trials[5:]] == [2, 2]
    assert result.best.rank == max(trial.rank for trial in result.trials)
    assert result.depths == (0, 1, 2)
    assert 0 < result.corrected.score <= 1
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["trials"] == sorted(plain["trials"], key=lambda row: -row["score"])
    assert set(plain["trials"][0]) == {
        "freeze_depth", "learning_rate", "epochs", "status", "seconds", "score", "loss",
        "standard_error", "reason",
    }  # fmt: skip
    assert "corrected for selection bias" in str(result)
    assert len(str(result).splitlines()) == 8


def test_the_winner_is_trained_in_full_by_its_recipe(found):
    result, _ = found
    last = result.recipe.phases[-1]
    assert last.freeze_depth == result.best.freeze_depth
    if result.best.learning_rate:
        assert last.learning_rate == result.best.learning_rate
        assert last.epochs > SPACE.max_epochs
    assert result.model.output_shape == (None, 2)
    assert result.history.history["phase"][0] == "head"
    assert result.recipe.reason.startswith("Best of 7 trials (halving)")
    assert Recipe.from_dict(result.recipe.to_dict()) == result.recipe


def test_the_figure_shows_trials_and_profile(found, tmp_path):
    figure = found[0].plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    assert [axes.get_title() for axes in figure.axes] == ["Trials", "Linear probe by stage"]
    figure.savefig(tmp_path / "search.png")


def test_a_search_leaves_no_weights_behind(found):
    _, directory = found
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".v2"}  # the latter for TensorBoard
    assert sum(path.stat().st_size for path in files) < 50_000


def test_the_same_search_is_taken_up_and_any_other_refused(found, data, monkeypatch):
    result, directory = found
    monkeypatch.setattr(TrialRunner, "run", lambda *_: pytest.fail("a trial was run again"))
    again = look(data, directory=directory)
    assert again.trials == result.trials
    assert again.best == result.best
    assert again.recipe == result.recipe
    pixels = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3)).astype("uint8")
    other = load_data((pixels, np.arange(40) % 2), seed=0)
    with pytest.raises(DataError, match="contains a different search. Its data is"):
        look(other, directory=directory)
    changed = dataclasses.replace(SPACE, learning_rates=(1e-3,))
    with pytest.raises(DataError, match=r"Its space.learning_rates is \[0.001, 0.01\], not"):
        look(data, directory=directory, space=changed)
    with pytest.raises(DataError, match='Its tuner is "halving", not "random"'):
        look(data, directory=directory, tuner="random")


@pytest.mark.parametrize(
    ("name", "weights", "depths"),
    [
        ("MobileNet(alpha=0.25)", "random", (6,)),
        pytest.param("MobileNetV2(alpha=0.35)", "embedded", (5, 7), marks=pytest.mark.slow),
    ],
)
def test_the_size_is_chosen_before_the_trials(data, tmp_path, monkeypatch, name, weights, depths):
    space = SearchSpace(freeze_depths=depths, learning_rates=(1e-3,), max_epochs=1)
    how = {
        "weights": weights, "directory": tmp_path, "space": space, "max_trials": 2,
        "verbose": False, "train_best": False,
    }  # fmt: skip
    result = search(data, name, image_sizes=(48, 32), **how)
    sizes = result.diagnosis["sizes"]
    assert [probe["image_size"] for probe in sizes] == [[32, 32], [48, 48]]
    (chosen,) = (tuple(probe["image_size"]) for probe in sizes if probe["chosen"])
    assert result.recipe.image_size == chosen
    monkeypatch.setattr(searching, "probe_sizes", None)  # a resumed search does not measure again
    again = search(data, name, image_sizes=(48, 32), **how)
    assert again.recipe == result.recipe
    assert again.diagnosis == result.diagnosis
    with pytest.raises(DataError, match=r'Its image_sizes is \["48", "32"\], not \["48", "64"\]'):
        search(data, name, image_sizes=(48, 64), **how)
    with pytest.raises(DataError, match=r'Its image_sizes is \["48", "32"\], not null'):
        search(data, name, image_size=chosen, **how)
    with pytest.raises(ArgumentError, match="`image_size` or `image_sizes`"):
        search(data, name, image_size=32, image_sizes=(48, 32), **how)


@pytest.mark.parametrize("tuner", ["random", "hyperband", "bayesian"])
def test_other_oracles_drive_the_same_trials(data, tmp_path, tuner, capsys):
    how = {"tuner": tuner, "space": STORED, "max_trials": 3, "directory": tmp_path / tuner}
    result = look(data, **how)
    assert 1 <= len(result.trials) <= 3
    assert {trial.freeze_depth for trial in result.trials} <= {1, 2}
    for trial in result.trials:
        assert (trial.learning_rate is None) == (trial.freeze_depth == 2)
        assert trial.is_completed
    files = sorted((tmp_path / tuner / "trials").iterdir())
    for file in files[1:]:
        file.unlink()  # as if it had been killed in the second trial
    again = look(data, **how)
    assert [trial.key for trial in again.trials] == [trial.key for trial in result.trials]
    assert capsys.readouterr().out == ""


class Kill(BaseException):
    """What no `except Exception` catches, as a kill."""


MOMENTS = {  # where, and at which call there
    "before the diagnosis": ("kerastl.training.search", "diagnose", 1),
    "before it is kept": ("kerastl.training.search", "atomic_write_json", 1),
    "in a trial": ("kerastl.training.trial_runner.TrialRunner", "_train", 1),
    "before a trial is kept": ("kerastl.training.trials", "atomic_write_json", 2),
    "while it is kept": ("kerastl._atomic.os", "replace", 2),
    "before the next": ("kerastl.training.shared_tuner.SharedTuner", "_look_at_the_clock", 5),
}


@pytest.mark.faults
def test_a_search_killed_again_and_again_ends_as_if_it_had_not_been(
    found, data, tmp_path, monkeypatch
):
    expected, directory = found[0], tmp_path / "killed"
    for owner, name, number in MOMENTS.values():
        with monkeypatch.context() as patch:
            patch.setattr(f"{owner}.{name}", kill_at(owner, name, number))
            with pytest.raises(Kill):
                look(data, directory=directory)
    ended = sorted((directory / "trials").glob("*.json"))
    assert 2 <= len(ended) < len(expected.trials)
    then = [path.stat().st_mtime_ns for path in ended]
    resumed = look(data, directory=directory)
    assert [path.stat().st_mtime_ns for path in ended] == then
    assert [trial.key for trial in resumed.trials] == [trial.key for trial in expected.trials]
    for trial, other in zip(resumed.trials, expected.trials, strict=True):
        assert trial.loss == pytest.approx(other.loss, rel=1e-4)
        assert trial.score == other.score
    assert resumed.recipe.phases == expected.recipe.phases


def kill_at(owner, name, number):
    """Return a function in place of another one, whose n-th call kills."""
    calls, done = [], getattr(pkgutil.resolve_name(owner), name)

    def call(*arguments, **named):
        calls.append(name)
        if len(calls) == number:
            raise Kill
        return done(*arguments, **named)

    return call


def test_a_failed_trial_is_kept_with_its_reason(data, monkeypatch, tmp_path):
    plain = TrialRunner._train

    def sometimes(self, phase):
        if phase.learning_rate == 1e-2:
            raise MemoryError("no room for 3 GB")
        return plain(self, phase)

    monkeypatch.setattr(TrialRunner, "_train", sometimes)
    result = look(data, directory=tmp_path / "search", space=STORED)
    failed = [trial for trial in result.trials if not trial.is_completed]
    assert {trial.learning_rate for trial in failed} == {1e-2}
    assert {trial.reason for trial in failed} == {"MemoryError: no room for 3 GB"}
    assert result.best.is_completed
    assert "failed, MemoryError: no room for 3 GB" in str(result)
    assert [row["status"] for row in result.table()][-len(failed) :] == ["failed"] * len(failed)
    again = look(data, directory=tmp_path / "search", space=STORED)
    assert again.trials == result.trials


@pytest.mark.parametrize("tuner", ["halving", "random"])
def test_no_completed_trial_is_an_error(data, monkeypatch, tuner):
    def never(*_):
        raise ValueError("odd")

    monkeypatch.setattr(TrialRunner, "_predict", never)
    with pytest.raises(TrainingError, match="None of the [0-9]+ trials was completed") as error:
        look(data, tuner=tuner, max_trials=4)
    assert "ValueError: odd" in str(error.value)


def test_what_is_wrong_with_the_images_is_no_trials_fault(data, monkeypatch):
    def bad(*_):
        raise DataError("cat.jpg is no image")

    monkeypatch.setattr(TrialRunner, "_predict", bad)
    with pytest.raises(DataError, match="cat.jpg"):
        look(data)


def test_no_trial_starts_once_the_budget_is_spent(data):
    assert len(look(data, budget=1e-3).trials) == 1


def test_progress_is_told(data, capsys):
    seen = []
    look(data, max_trials=2, on_progress=seen.append, verbose=True)
    assert [(p.num_ended, p.num_planned, len(p.trials)) for p in seen] == [(1, 2, 1), (2, 2, 2)]
    assert seen[-1].seconds_left == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "trial 1 of 2: head alone: score" in err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tuner": "grid"}, "`tuner` must be one of 'halving'"),
        ({"max_trials": 0}, "`max_trials` must be an int of at least 1"),
        ({"budget": 0}, "`budget` must be a number above 0"),
        ({"recipe": "small_similar"}, "needs a recipe with a phase of method 'probe', then"),
        (
            {"space": SearchSpace(freeze_depths=(5,))},
            "an int from 0 to 2. .* to train the head only",
        ),
        ({"space": SearchSpace(freeze_depths=())}, "at least one depth"),
    ],
)
def test_wrong_arguments_are_told(data, changes, told):
    with pytest.raises(ArgumentError, match=told):
        look(data, **changes)


def test_without_validation_images_nothing_can_be_chosen(data):
    with pytest.raises(DataError, match="`validation_fraction` above 0"):
        look(dataclasses.replace(data, validation=None))
