import numpy as np
import pytest

from kerastl.errors import TrainingError
from kerastl.training.callbacks import (
    KeepBest,
    PhaseProgress,
    StopOnNonFinite,
    least_worth_keeping,
)


class FakeModel:
    def __init__(self, weights=0.0):
        self.weights = [np.array([weights])]
        self.stop_training = False

    def get_weights(self):
        return [weight.copy() for weight in self.weights]

    def set_weights(self, weights):
        self.weights = weights


def driven(callback, epochs):
    """Call the hooks as `fit` does, the weights of epoch k being k; return the model."""
    model = FakeModel()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, (accuracy, loss) in enumerate(epochs):
        model.weights = [np.array([epoch + 1.0])]
        callback.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss})
        if model.stop_training:
            break
    callback.on_train_end()
    return model


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(0.6, 0.5), (0.8, 0.9), (0.7, 0.1)], 2),
        ([(0.6, 0.5), (0.69, 0.4)], 0),  # no better than before the phase
        ([(0.8, 0.6), (0.8, 0.4), (0.8, 0.45)], 2),  # the loss decides among equals
        ([(0.7, 0.1)], 0),
        ([(0.74, 0.1)], 0),  # a standard error of 0.7 on 100 images is 0.046
        ([(0.75, 0.6)], 1),
    ],
)
def test_keep_best(epochs, best):
    callback = KeepBest(least_worth_keeping(0.7, num_images=100), patience=10)
    model = driven(callback, epochs)
    assert callback.best_epoch == best
    assert model.weights[0][0] == best


def test_a_head_that_is_never_wrong_is_kept():
    callback = KeepBest(least_worth_keeping(1.0, num_images=4), patience=10)
    assert driven(callback, [(1.0, 0.1)]).weights[0][0] == callback.best_epoch == 0


def test_the_last_epoch_of_a_schedule_that_ends_is_kept():
    epochs = [(0.6, 0.5), (0.8, 0.9), (0.7, 0.1)]
    callback = KeepBest(-1.0, patience=10, keep_last=True)
    assert driven(callback, epochs).weights[0][0] == callback.best_epoch == 3
    assert callback.first_weights[0][0] == 0
    stopped = KeepBest(-1.0, patience=1, keep_last=True)
    assert driven(stopped, epochs).weights[0][0] == stopped.best_epoch == 2


def test_patience():
    callback = KeepBest(least_worth_keeping(0.7, num_images=100), patience=2)
    model = driven(callback, [(0.8, 0.4), (0.7, 0.4), (0.7, 0.4), (0.9, 0.1)])
    assert model.stop_training
    assert callback.best_epoch == 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(loss):
    callback = StopOnNonFinite("fine_tune", 0.5)
    model = FakeModel(1.0)
    callback.set_model(model)
    callback.on_epoch_begin(3)
    model.weights = [np.array([np.nan])]
    with pytest.raises(TrainingError, match=r"phase 'fine_tune', epoch 4.*it was 0.5"):
        callback.on_train_batch_end(0, {"loss": loss})
    assert model.weights[0][0] == 1.0


def test_weights_that_are_no_numbers_behind_a_finite_loss():
    callback = StopOnNonFinite("fine_tune", 0.5)
    model = FakeModel(1.0)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0, {"loss": 0.3})
    callback.on_epoch_end(0, {"loss": 0.3})
    model.weights = [np.array([np.inf])]
    with pytest.raises(TrainingError):
        callback.on_epoch_end(0, {"loss": 0.3})


def test_progress_speaks_on_stderr_alone(capsys):
    callback = PhaseProgress("head", 2)
    callback.on_train_begin()
    callback.on_train_batch_end(0)
    callback.on_epoch_end(0, {"loss": 0.25})
    callback.on_train_end()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "head epoch 1  loss 0.2500" in captured.err
