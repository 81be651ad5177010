import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastl.advice import evidence
from kerastl.advice.evidence import (
    MENDED_BY_ALL_STAGES,
    NUM_FEATURES,
    OPENINGS,
    Evidence,
    beats_chance,
    best_opening,
    coefficients,
    expected_gain,
    features,
    opening_depth,
    probability_different,
    probability_large,
    scenario_of,
)
from kerastl.advice.scores import LearningCurve, Prediction

COEFFICIENTS = {
    "different": {
        "shift": 0.1,
        "per_log_shift": 2.0,
        "source_share": 0.4,
        "per_source_share": 2.0,
        "earlier_lead": 1.0,
    },
    "gains": {"last_stage": [0.1, 0, 0, 0], "half": [0, 0.3, 0, 0], "all": [0, 0, 0, 0.4]},
    "least_gain": 0.005,
}
EVIDENCE = Evidence(num_images=1000, num_classes=5, probe_error=0.2)


@pytest.fixture
def _known_coefficients(monkeypatch):
    monkeypatch.setattr(evidence, "coefficients", lambda: COEFFICIENTS)


def curve(a, b, num_images=1000):
    nothing = Prediction(num_images, 0.0, 0.0, 0.0)
    return LearningCurve(a, b, num_images, nothing, nothing)


@pytest.mark.parametrize(
    ("num_images", "num_classes", "fitted", "large"),
    [
        (60, 2, None, 0.027),  # few: 6 % of a thousand
        (60, 2, curve(0.3, 0.0), 0.0405),
        (999, 2, curve(0.3, 0.0), 0.45),  # few, whatever the curve says
        (999, 2, curve(0.0, 1.0), 0.45 * 0.999 * 0.5),
        (4900, 100, curve(0.3, 0.0), 0.45),  # 49 a class
        (5000, 100, None, 0.5),
        (2500, 10, curve(0.1, 5.0), 0.5),
        (2500, 10, curve(0.3, 5.0), 0.75),
        (2500, 10, curve(0.0, 5.0), 0.0),
        (2500, 10, curve(0.0, 0.0), 0.5),  # no error at all: nothing to tell by
        (20_000, 10, curve(0.0, 5.0), 0.9),
        (60_000, 10, None, 0.9),
        (60_000, 10, curve(0.3, 0.0), 1.0),
        (20_000, 1000, None, 0.18),  # many, but 20 a class
    ],
)
def test_probability_large(num_images, num_classes, fitted, large):
    assert probability_large(num_images, num_classes, fitted) == pytest.approx(large)


@pytest.mark.parametrize("fitted", [None, curve(0.3, 0.0), curve(0.0, 1.0)])
@pytest.mark.parametrize(
    ("num_images", "num_classes", "is_large"),
    [(999, 2, False), (49 * 40, 40, False), (20_000, 10, True), (20_000, 401, False)],
)
def test_back_stops_hold_for_any_curve(num_images, num_classes, is_large, fitted):
    assert (probability_large(num_images, num_classes, fitted) > 0.5) is is_large


@pytest.mark.usefixtures("_known_coefficients")
@pytest.mark.parametrize(
    ("measured", "different"),
    [
        ({}, 0.5),
        ({"shift": 0.1}, 0.5),
        ({"source_share": 0.4}, 0.5),
        ({"shift": 0.2}, 0.8),  # odds 2 ** 2
        ({"shift": 0.05}, 0.2),
        ({"shift": 0.0}, 1 / (1 + math.exp(4))),  # e ** 2 times at most
        ({"shift": 100.0}, 1 / (1 + math.exp(-4))),
        ({"source_share": 0.9}, 1 / (1 + math.e)),
        ({"source_share": -0.1}, 1 / (1 + 1 / math.e)),
        ({"earlier_lead": 2.0}, 0.5),
        ({"earlier_lead": 2.1}, 1 / (1 + 1 / math.e)),
        ({"earlier_lead": -1.0}, 0.5),
        ({"shift": 0.2, "source_share": 0.9, "earlier_lead": 3.0}, 0.8),
    ],
)
def test_probability_different(measured, different):
    evidence = dataclasses.replace(EVIDENCE, **measured)
    assert probability_different(evidence) == pytest.approx(different)


def test_the_more_shift_and_the_less_share_the_more_different():
    shifts = [0, 0.02, 0.05, 0.1, 0.2, 0.5]
    by_shift = [probability_different(dataclasses.replace(EVIDENCE, shift=s)) for s in shifts]
    assert by_shift == sorted(by_shift)
    assert by_shift[0] < 0.3 < 0.7 < by_shift[-1]
    shares = [0.9, 0.5, 0.2, 0.0, -0.1]
    by_share = [
        probability_different(dataclasses.replace(EVIDENCE, source_share=s)) for s in shares
    ]
    assert by_share == sorted(by_share)
    assert by_share[0] < 0.5 < by_share[-1]


@pytest.mark.parametrize(
    ("large", "different", "scenario", "probability"),
    [
        (0.1, 0.2, "small_similar", 0.72),
        (0.9, 0.2, "large_similar", 0.72),
        (0.1, 0.8, "small_different", 0.72),
        (0.9, 0.8, "large_different", 0.72),
        (0.5, 0.5, "small_similar", 0.25),  # the least is changed where nothing is known
        (1.0, 1.0, "large_different", 1.0),
    ],
)
def test_scenario_of(large, different, scenario, probability):
    found, sure = scenario_of(large, different)
    assert found == scenario
    assert sure == pytest.approx(probability)


@pytest.mark.parametrize(
    ("num_images", "different", "terms"),
    [
        (200, 0.5, [1, 0, 0, 0]),
        (2000, 1.0, [1, 1, 1, 1]),
        (2000, 0.0, [1, -1, 1, -1]),
        (20, 0.75, [1, 0.5, -1, -0.5]),
        (1, 0.75, [1, 0.5, -1, -0.5]),
        (10**7, 0.25, [1, -0.5, 1, -0.5]),
    ],
)
def test_features(num_images, different, terms):
    assert features(num_images, different) == pytest.approx(terms)


def test_the_expected_gain_is_linear_in_features_and_error():
    weights = {opening: [0.1, 0.2, 0.3, 0.4] for opening in OPENINGS[1:]}
    at_most = dataclasses.replace(EVIDENCE, num_images=2000)
    assert expected_gain("all", at_most, 1.0, weights) == pytest.approx(0.2 * 1.0)
    assert expected_gain("half", at_most, 0.0, weights) == pytest.approx(0.2 * -0.2)
    twice = dataclasses.replace(at_most, probe_error=0.4)
    assert expected_gain("all", twice, 1.0, weights) == pytest.approx(0.4)
    no_error = dataclasses.replace(at_most, probe_error=0.0)
    assert expected_gain("all", no_error, 1.0, weights) == 0
    assert expected_gain("head", twice, 1.0, weights) == 0
    of_stages = expected_gain("all", twice, 1.0, weights, head="stages")
    assert of_stages == pytest.approx(0.4)
    of_stages = expected_gain("half", at_most, 0.0, weights, head="stages")
    assert of_stages == pytest.approx(0.2 * (-0.2 - MENDED_BY_ALL_STAGES))
    assert expected_gain("head", twice, 1.0, weights, head="stages") == 0


@pytest.mark.usefixtures("_known_coefficients")
@pytest.mark.parametrize(
    ("error", "num_images", "different", "opening"),
    [
        (0.2, 2000, 0.5, "last_stage"),
        (0.2, 2000, 1.0, "all"),
        (0.2, 200, 1.0, "half"),
        (0.2, 200, 0.0, "last_stage"),
        (0.05, 200, 0.0, "last_stage"),  # half a point
        (0.049, 200, 0.0, "head"),
        (0.0, 2000, 1.0, "head"),
    ],
)
def test_best_arm_is_the_head_unless_half_a_point_is_gained(error, num_images, different, opening):
    evidence = Evidence(num_images=num_images, num_classes=2, probe_error=error)
    assert best_opening(evidence, different) == opening


@pytest.mark.parametrize(
    ("num_stages", "depths"), [(7, [7, 6, 3, 0]), (4, [4, 3, 2, 0]), (1, [1, 0, 0, 0])]
)
def test_depth_of(num_stages, depths):
    assert [opening_depth(opening, num_stages) for opening in OPENINGS] == depths


def test_the_coefficients_are_complete():
    numbers = coefficients()
    assert numbers["provenance"]
    assert set(numbers["different"]) == set(COEFFICIENTS["different"])
    assert set(numbers["gains"]) == set(OPENINGS[1:])
    for weights in numbers["gains"].values():
        assert len(weights) == NUM_FEATURES
        assert np.isfinite(weights).all()
    assert numbers["different"]["shift"] > 0
    assert numbers["least_gain"] > 0


shares = st.floats(0, 1)
evidences = st.builds(
    Evidence,
    num_images=st.integers(1, 10**8),
    num_classes=st.integers(2, 10_000),
    probe_error=shares,
    shift=st.none() | st.floats(0, 1e6),
    source_share=st.none() | st.floats(-10, 1),
    earlier_lead=st.floats(-1, 1e3),
)
curves = st.none() | st.builds(curve, shares, st.floats(0, 1e3))


@given(evidences, curves)
def test_probabilities_stay_within_0_and_1(evidence, fitted):
    large = probability_large(evidence.num_images, evidence.num_classes, fitted)
    different = probability_different(evidence)
    assert 0 <= large <= 1
    assert 0 <= different <= 1
    scenario, probability = scenario_of(large, different)
    assert 0.25 <= probability <= 1
    assert scenario.startswith("large" if large > 0.5 else "small")
    assert all(-1 <= term <= 1 for term in features(evidence.num_images, different))
    gains = [expected_gain(opening, evidence, different) for opening in OPENINGS]
    assert np.isfinite(gains).all()
    assert best_opening(evidence, different) in OPENINGS


@pytest.mark.parametrize(
    ("num_right", "counts", "better"),
    [(50, [50, 50], False), (64, [50, 50], False), (66, [50, 50], True), (90, [90, 10], False)],
)
def test_better_than_guessing_the_commonest_class(num_right, counts, better):
    """Of 100 throws of a coin 66 or more are heads in 0.09 % of all cases, 65 in 0.18 %."""
    assert beats_chance(num_right, 100, counts) is better
