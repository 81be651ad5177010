import numpy as np
import pytest

from kerastl.training.decision import MENDED, MENDED_DEVIATION, decide, expected_gain


def answers(num_images, wrong, mended=0, spoilt=0):
    """Which of so many answers are right before and after."""
    before = np.arange(num_images) >= wrong
    after = before.copy()
    after[:mended] = True
    after[num_images - spoilt :] = False
    return before, after


@pytest.mark.parametrize(
    ("case", "is_kept"),
    [
        ((30, 6, 0, 0), True),  # few images that say nothing: such phases usually pay
        ((30, 6, 2, 2), True),
        ((30, 6, 1, 2), True),  # one image is luck
        ((30, 6, 0, 4), False),
        ((150, 30, 6, 2), True),
        ((150, 30, 4, 4), True),
        ((150, 30, 2, 8), False),
        ((5000, 1000, 40, 60), False),  # many images are believed
        ((5000, 1000, 60, 40), True),
        ((150, 0, 0, 2), False),
    ],
)
def test_what_is_kept(case, is_kept):
    assert (expected_gain(*answers(*case)) > 0) == is_kept


def test_the_gain_is_the_mean_of_the_posterior():
    """Against the product of both densities on a grid."""
    num_images, wrong, mended, spoilt = 120, 24, 5, 3
    grid = np.linspace(-0.5, 0.5, 200_001)
    share = 25 / 122
    prior = -0.5 * ((grid - MENDED * share) / (MENDED_DEVIATION * share)) ** 2
    seen = -0.5 * (grid - 2 / 120) ** 2 / (9 / 120**2)
    weights = np.exp(prior + seen - (prior + seen).max())
    expected = (grid * weights).sum() / weights.sum()
    assert expected_gain(*answers(num_images, wrong, mended, spoilt)) == pytest.approx(expected)


def test_what_is_as_often_right_but_knows_no_more_is_undone():
    """Three of four answers are right by their frequency alone."""
    labels = np.where(np.arange(80) % 4, 0, 1 + np.arange(80) % 2)
    before = scores(labels, np.arange(80) % 4 != 0, 0.9)
    before[np.arange(80) % 4 == 0] = [0.4, 0.3, 0.3]
    knows_nothing = np.full((80, 3), [0.998, 0.001, 0.001])
    found = decide(labels, before, {1.0: knows_nothing})
    assert found.before == found.after == 0.75
    assert found.gain > 0
    assert found.share == 0
    assert ", but the log loss rose by more than one standard error. The" in found.text("fine_tune")


def test_with_many_images_it_is_what_they_say():
    before, after = answers(100_000, 20_000, 3000, 1000)
    assert expected_gain(before, after) == pytest.approx(0.02, rel=0.02)


def scores(labels, right, sure):
    """Probabilities that are so sure, of a class that is right or the next one."""
    answer = np.where(right, labels, (labels + 1) % 3)
    return np.where(np.eye(3, dtype=bool)[answer], sure, (1 - sure) / 2)


def test_of_the_shares_the_most_often_right_is_kept_and_then_the_least_log_loss():
    labels = np.arange(100) % 3
    before, after = answers(100, 20, 10, 0)
    learnt = {share: scores(labels, after, sure) for share, sure in ((0.5, 0.9), (1.0, 0.9999))}
    learnt[0.75] = scores(labels, answers(100, 20, 9, 0)[1], 0.9)
    found = decide(labels, scores(labels, before, 0.7), learnt)
    assert (found.share, found.before, found.after, found.num_images) == (0.5, 0.8, 0.9, 100)
    assert found.text("fine_tune").startswith(
        "fine_tune: kept, 50% of the way from the earlier weights. Validation accuracy 0.900"
    )


def test_what_does_not_pay_is_undone():
    labels = np.arange(100) % 3
    before, after = answers(100, 20, 0, 20)
    found = decide(labels, scores(labels, before, 0.7), {1.0: scores(labels, after, 0.9)})
    assert found.share == 0
    assert "fine_tune: not kept. Validation accuracy 0.600" in found.text("fine_tune")
    assert found.text("fine_tune").endswith("The earlier model is used.")
