import numpy as np
import pytest

from kerastl.advice import rank
from kerastl.advice.rank import RankedBackbone, order_backbones, published_top1, rank_backbones
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError, WeightsError

SMALL, OTHER = "MobileNetV2(alpha=0.35)", "MobileNet(alpha=0.25)"


def known(name, top1):
    return RankedBackbone(name, 0.0, 0.0, top1, 1, 0.1, (32, 32))


def rights(num_right, num_images=100):
    return np.arange(num_images) < num_right


@pytest.mark.parametrize(
    ("accuracies", "top1", "order"),
    [
        ((50, 90, 70), (0.9, 0.6, 0.7), "bca"),  # far apart: the probe alone
        ((90, 90, 90), (0.7, 0.8, 0.6), "bac"),  # ties: ImageNet
        ((90, 91, 70), (0.8, 0.7, 0.9), "abc"),  # 1 of 100, where 11 differ
        ((88, 91, 70), (0.8, 0.7, 0.9), "bac"),  # 3 of 100, where 7 differ
        ((90, 90, 70), (None, 0.1, 0.9), "abc"),  # one of a tie has none: the probe again
        ((90, 91, 89), (None, None, None), "bac"),
        ((70, 60, 50), (None, None, None), "abc"),
    ],
)
def test_the_probe_orders_and_imagenet_breaks_ties(accuracies, top1, order):
    found = [known(name, accuracy) for name, accuracy in zip("abc", top1, strict=True)]
    right = [rights(number) for number in accuracies]
    right[0] = np.roll(right[0], 5)
    ranked = order_backbones(found, right)
    assert "".join(backbone.name for backbone in ranked) == order
    by_name = {backbone.name: backbone for backbone in ranked}
    assert [by_name[name].probe_score for name in "abc"] == [n / 100 for n in accuracies]


def test_the_error_is_that_of_the_difference_image_by_image():
    found = [known("a", 0.7), known("b", 0.7)]
    best, other = rights(90), np.roll(rights(90), 10)
    first, second = order_backbones(found, [best, other])
    assert (first.standard_error, second.standard_error) == (0, pytest.approx(0.2**0.5 / 99**0.5))


@pytest.fixture(scope="module")
def data():
    """Two classes told apart by their brightness, which any network sees."""
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = rng.integers(0, 100, (64, 40, 40, 3)) + 120 * labels[:, None, None, None]
    return load_data((images.astype("uint8"), labels))


def test_two_backbones(data):
    weights = ["embedded", "random"]
    ranked = rank_backbones(data, [SMALL, OTHER], weights=weights, image_size=64, max_images=30)
    assert {backbone.name for backbone in ranked} == {SMALL, OTHER}
    accuracies = {backbone.name: backbone.probe_score for backbone in ranked}
    assert accuracies[SMALL] > 0.9
    for backbone in ranked:
        assert backbone.imagenet_top1 is None  # published for the default width alone
        assert backbone.image_size == (64, 64)
        assert backbone.seconds_per_image > 0
        assert backbone.num_parameters > 200_000
        assert 0 <= backbone.standard_error < 0.2


@pytest.mark.slow
def test_real_networks_on_real_photographs(shared_file, imagenet_weights, real_photographs):
    """Pretrained weights before random ones of the same network."""
    photographs = load_data(str(real_photographs))
    ranked = rank_backbones(
        photographs, [SMALL, SMALL], weights=["random", imagenet_weights], image_size=96,
        max_images=60,
    )  # fmt: skip
    assert ranked[0].probe_score > ranked[1].probe_score + 0.1
    assert ranked[0].standard_error == 0


def test_the_published_accuracy_is_that_of_the_default_architecture():
    assert published_top1("ResNet50") == pytest.approx(0.749)
    assert published_top1(SMALL) is None


def test_wrong_arguments_are_told_before_any_pass(data, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a model was built")

    monkeypatch.setattr(rank, "build_transfer_model", refuse)
    with pytest.raises(ArgumentError, match="at least one backbone"):
        rank_backbones(data, [])
    with pytest.raises(ArgumentError, match="Did you mean 'MobileNetV2'"):
        rank_backbones(data, [SMALL, "MobilNetV2"])
    with pytest.raises(ArgumentError, match="Received: 1 for 2 backbones"):
        rank_backbones(data, [SMALL, OTHER], weights=["random"])
    with pytest.raises(ArgumentError, match=r"Received: 'MobileNetV2'\. Write \['MobileNetV2'\]"):
        rank_backbones(data, "MobileNetV2")
    with pytest.raises(ArgumentError, match="`max_images` must be an int of at least 2"):
        rank_backbones(data, [SMALL], max_images=1)


def test_weights_that_are_not_there(data, tmp_path):
    with pytest.raises(WeightsError, match="no_such.h5"):
        rank_backbones(data, [SMALL], weights=tmp_path / "no_such.h5")
