import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from kerastl.advice.probe import PENALTIES, SoftmaxProbe, _strongest_within_one_error


def blobs(num_classes, per_class=30, dim=8, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, dim)) * 2
    y = np.repeat(np.arange(num_classes), per_class)
    return (centres[y] + spread * rng.normal(size=(len(y), dim))).astype("float32"), y


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_equals_scikit_learn_on_standardised_features(num_classes):
    x, y = blobs(num_classes)
    x = x * np.arange(1, 9) + 5
    probe = SoftmaxProbe().fit(x, y)
    standardised = (x - x.mean(0)) / x.std(0)
    other = LogisticRegression(C=probe.C_, max_iter=2000, tol=1e-6).fit(standardised, y)
    np.testing.assert_allclose(probe.predict_proba(x), other.predict_proba(standardised), atol=0.02)
    assert probe.coef_.shape == (num_classes, 8)
    assert probe.intercept_.shape == (num_classes,)
    assert probe.score(x, y) > 0.9


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ([[0.9] * 4, [0.5] * 4, [0.4] * 4, [0.6] * 4], 2),
        # The least mean is 0.5, its standard error 0.25: 0.7 is near enough and stronger.
        ([[0.9] * 4, [0.7] * 4, [0.0, 0.0, 1.0, 1.0], [0.8] * 4], 1),
        ([[0.1] * 4, [0.2] * 4, [0.3] * 4, [0.4] * 4], 0),
    ],
)
def test_the_strongest_penalty_within_one_standard_error(losses, chosen):
    assert _strongest_within_one_error(np.array(losses)) == chosen


def test_no_weaker_than_the_penalty_of_least_loss():
    """Where classes overlap, against scikit-learn's own folds and search."""
    x, y = blobs(3, per_class=40, dim=60, spread=12.0)
    standardised = (x - x.mean(0)) / x.std(0)
    candidates = {"C": list(PENALTIES)}
    other = GridSearchCV(LogisticRegression(max_iter=1000), candidates, scoring="neg_log_loss")
    assert SoftmaxProbe().fit(x, y).C_ <= other.fit(standardised, y).best_params_["C"]


def test_views_of_one_image_stay_in_one_fold():
    """On noise, a copy in the other fold would make a weak penalty win."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 40)).astype("float32"), np.arange(60) % 2
    doubled = np.concatenate([x, x]), np.concatenate([y, y])
    groups = np.tile(np.arange(60), 2)
    assert SoftmaxProbe().fit(*doubled, groups).C_ == PENALTIES[0]
    assert SoftmaxProbe().fit(*doubled).C_ > PENALTIES[0]


def test_classes_with_a_single_image():
    x, y = blobs(3, per_class=4)
    probe = SoftmaxProbe().fit(x[[0, 4, 8]], y[[0, 4, 8]])
    assert probe.predict(x[[0, 4, 8]]).tolist() == [0, 1, 2]


def test_labels_need_not_start_at_zero():
    x, y = blobs(3)
    probe = SoftmaxProbe().fit(x, y + 5)
    assert probe.classes_.tolist() == [5, 6, 7]
    assert set(probe.predict(x)) == {5, 6, 7}
    np.testing.assert_allclose(probe.predict_proba(x).sum(1), 1, atol=1e-5)


def test_the_penalty_is_chosen_on_a_part_of_many_images(monkeypatch):
    x, y = blobs(3, per_class=100)
    monkeypatch.setattr("kerastl.advice.probe.MAX_IMAGES_TO_CHOOSE", 60)
    sizes = []
    import kerastl.advice.probe as module

    fit = module._fit_softmax
    monkeypatch.setattr(
        module, "_fit_softmax", lambda x, *rest: sizes.append(len(x)) or fit(x, *rest)
    )
    assert SoftmaxProbe().fit(x, y).score(x, y) > 0.9
    assert sizes[-1] == 300
    assert max(sizes[:-1]) == 48
