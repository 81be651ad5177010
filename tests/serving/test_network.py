import keras
import numpy as np
import pytest

from kerastl.errors import ArgumentError
from kerastl.model.build import build_transfer_model
from kerastl.serving.network import served_network
from kerastl.serving.parity import tempered


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("head", "dropout"), [("linear", 0.0), ("linear", 0.5), ("mlp", 0.3)])
def test_every_head_is_served_without_its_dropout(tiny_backbone, head, dropout, temperature):
    model = build_transfer_model(tiny_backbone(), 3, head=head, dropout=dropout)
    rng = np.random.default_rng(0)
    layer = model.get_layer("head")
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype("float32")
    network = served_network(model, temperature)
    embedding, probabilities = network.predict(images, verbose=0)
    expected = tempered(model.predict(images, verbose=0), temperature)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert embedding.shape == (4, 24)
    kinds = [type(one).__name__ for one in network.layers]
    assert "Dropout" not in kinds
    assert "Sequential" not in kinds


def test_what_is_no_classifier_is_refused(tiny_backbone):
    backbone = tiny_backbone()
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(backbone.outputs[0]))
    with pytest.raises(ArgumentError, match="end in a dense layer with a softmax"):
        served_network(keras.Model(backbone.inputs, scores))
