import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from kerastl.advice.advise import advise
from kerastl.advice.diagnosis import diagnose
from kerastl.advice.probe import LinearProbe
from kerastl.advice.sizes import SizeProbe, chosen_size, probe_sizes, why_chosen
from kerastl.data.load import load_data
from kerastl.errors import ArgumentError
from kerastl.frozen.activations import extract_embeddings
from kerastl.model.build import build_transfer_model

SMALL = "MobileNetV2(alpha=0.35)"


@pytest.fixture(scope="module")
def digits():
    """Digits of 32 pixels, enlarged from 8."""
    found = load_digits(n_class=4)
    pixels = np.kron(found.images[:160] * (255 / 16), np.ones((1, 4, 4))).astype("uint8")
    return load_data((pixels, found.target[:160]), test_fraction=0.0)


@pytest.fixture(scope="module", params=["tiny", pytest.param(SMALL, marks=pytest.mark.slow)])
def network(request, tiny_backbone, tmp_path_factory):
    """The name of a backbone, and the weights: a tiny earlier model, or the embedded ones."""
    if request.param == SMALL:
        return SMALL, {"weights": "embedded"}
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("earlier") / "model.keras"
    build_transfer_model(tiny_backbone(), 4).save(path)
    return str(path), {}


@pytest.fixture(scope="module")
def found(digits, network):
    name, weights = network
    return diagnose(name, digits, image_sizes=(96, 32, (64, 64)), store=None, **weights)


def test_the_smallest_within_a_standard_error_is_chosen(digits, network, found):
    assert [probe.image_size for probe in found.sizes] == [(32, 32), (64, 64), (96, 96)]
    assert [probe.work for probe in found.sizes] == [1, 4, 9]
    right = []
    for probe in found.sizes:
        name, weights = network
        model = build_transfer_model(name, 4, image_size=probe.image_size, **weights)
        x, y = extract_embeddings(model, digits.train, store=None)
        right.append(LinearProbe(seed=0).fit(x, y).is_right_.astype(float))
        assert probe.score == right[-1].mean()
    best = max(range(3), key=lambda i: (right[i].mean(), -i))
    lost = [right[best] - own for own in right]
    good = [
        i for i in range(3)
        if lost[i].mean() <= 0 or lost[i].mean() < lost[i].std(ddof=0) / np.sqrt(len(lost[i]) - 1)
    ]  # fmt: skip
    assert [probe.chosen for probe in found.sizes] == [i == good[0] for i in range(3)]
    assert found.image_size == chosen_size(found.sizes).image_size


def test_all_else_is_measured_at_that_size(digits, network, found):
    name, weights = network
    alone = diagnose(name, digits, image_size=found.image_size, store=None, **weights)
    told = found.to_dict()
    assert told.pop("sizes")[0]["image_size"] == (32, 32)
    assert {**alone.to_dict(), "sizes": None} == {**told, "sizes": None}
    json.dumps(found.to_dict())
    assert str(found).startswith(str(alone).splitlines()[0])
    assert f"Image size {found.image_size[0]}: probe at 32: " in str(found)


def test_advice_takes_the_size_unless_another_is_asked_for(network, found):
    advice = advise(found, backbone=network[0])
    assert advice.recipe.image_size == found.image_size
    (reason,) = (reason for reason in advice.reasons if reason.name == "image_size")
    assert reason.why == why_chosen(found.sizes)
    asked = advise(found, backbone=network[0], image_size=(128, 128))
    assert asked.recipe.image_size == (128, 128)


def test_the_reason_tells_what_more_work_would_gain():
    small, large = (
        SizeProbe((128, 128), 0.8, 0.016, 1.0, True),
        SizeProbe((160, 192), 0.81, 0.0, 1.875, False),
    )
    assert why_chosen((small, large)) == (
        "probe at 128: 0.800, 160 x 192: 0.810; 160 x 192 would gain 1.0 points (± 1.6) for 1.9 "
        "times the work"
    )
    best = SizeProbe((160, 160), 0.9, 0.0, 1.6, True)
    assert why_chosen((SizeProbe((128, 128), 0.8, 0.02, 1.0, False), best)) == (
        "probe at 128: 0.800, 160: 0.900; no smaller size is within one standard error"
    )


@pytest.mark.parametrize(
    ("sizes", "told"),
    [((64,), "at least two sizes"), ((64, (64, 64)), "at least two sizes"), ((16, 64), "32")],
)
def test_sizes_that_cannot_be_are_told(digits, sizes, told):
    with pytest.raises(ArgumentError, match=told):
        probe_sizes(SMALL, 4, digits.train, sizes, weights="embedded")


def test_a_size_beside_and_a_model_are_refused(digits, tiny_backbone):
    with pytest.raises(ArgumentError, match="`image_size` or `image_sizes`"):
        diagnose(SMALL, digits, weights="embedded", image_size=64, image_sizes=(64, 96))
    model = build_transfer_model(tiny_backbone(), 4)
    with pytest.raises(ArgumentError, match="A model that is already built has a fixed size"):
        diagnose(model, digits, image_sizes=(32, 64))


@pytest.mark.slow
def test_real_photographs(shared_file, imagenet_weights, tmp_path):
    """Ants and bees of MobileNetV2 0.35: at 64 pixels they are told apart worse than at 160."""
    import zipfile

    with zipfile.ZipFile(shared_file("data/hymenoptera.zip")) as archive:
        archive.extractall(tmp_path)
    data = load_data(str(tmp_path / "hymenoptera"))
    sizes = probe_sizes(SMALL, 2, data.train, (64, 160), weights=str(imagenet_weights))
    assert sizes[1].chosen
    assert sizes[1].score > sizes[0].score + 0.05
