"""The epochs of a phase over several devices or machines, by `tf.distribute.Strategy.run`.

Keras' `fit` cannot train over several machines (https://github.com/keras-team/keras/issues/20585),
and over several devices it fails at batches that do not divide, and weighs images unevenly. This
loop calls the same callbacks with the same logs.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerastl.distribute import distribute_batches, pad_batches, trim_batches


class SharedLoop:
    """Trains and measures a model whose strategy has several replicas.

    Args:
        model: compiled in the scope of its strategy, so that it has an optimizer.
        loss: from one-hot labels and probabilities to one value an image (`reduction=None`).
    """

    def __init__(self, model: keras.Model, loss: keras.losses.Loss):
        self._model = model
        self._loss = loss
        self._strategy = model.distribute_strategy
        self._replicas = int(self._strategy.num_replicas_in_sync)
        self._train_step = tf.function(self._train_on_next)
        self._test_step = tf.function(self._test_on_next)

    def fit(
        self,
        train: Any,
        *,
        epochs: int,
        steps: int,
        validation: Any = None,
        initial_epoch: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> dict[str, list[float]]:
        """Train, and return the history: `loss`, `accuracy`, `val_loss`, `val_accuracy` an epoch.

        Args:
            train: `tf.data.Dataset` of the inputs and one-hot labels of the epochs from
                `initial_epoch` on, in batches for all replicas together.
            epochs: the number of the last one, from 1.
            steps: of an epoch, as `steps_an_epoch` counts them.
            validation: as `train`, of one epoch, or None.
            initial_epoch: epochs that were trained before.
            callbacks: as `fit` takes them.
        """
        history = keras.callbacks.History()
        called = keras.callbacks.CallbackList(
            [*callbacks, history], model=self._model, epochs=epochs, steps=steps, verbose=0
        )
        self._model.stop_training = False
        called.on_train_begin()
        shares = iter(distribute_batches(trim_batches(train, self._replicas), self._strategy))
        for epoch in range(initial_epoch, epochs):
            called.on_epoch_begin(epoch)
            sums = tf.zeros(3)
            for step in range(steps):
                called.on_train_batch_begin(step)
                sums += self._train_step(shares)
                called.on_train_batch_end(step, _measures(sums))
            logs = _measures(sums)
            if validation is not None:
                measured = self.evaluate(validation)
                logs |= {f"val_{name}": value for name, value in measured.items()}
            called.on_epoch_end(epoch, logs)
            if self._model.stop_training:
                break
        called.on_train_end()
        return dict(history.history)

    def evaluate(self, batches: Any) -> dict[str, float]:
        """Return `loss` and `accuracy` on all images of a `tf.data.Dataset`, each counted once."""
        filled = pad_batches(batches, self._replicas)
        steps = int(batches.cardinality())
        shares = iter(distribute_batches(filled, self._strategy))
        return _measures(sum((self._test_step(shares) for _ in range(steps)), tf.zeros(3)))

    def _train_on_next(self, shares: Any) -> Any:
        return self._summed(self._train_on, next(shares))

    def _test_on_next(self, shares: Any) -> Any:
        return self._summed(self._test_on, next(shares))

    def _summed(self, on_one: Any, share: Any) -> Any:
        """Return the sums of loss, of right answers and of images over all replicas."""
        per_replica = self._strategy.run(on_one, args=share)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)

    def _train_on(self, inputs: Any, labels: Any) -> Any:
        variables = self._model.trainable_variables
        count = tf.cast(tf.shape(labels)[0], tf.float32)
        optimizer = self._model.optimizer
        with tf.GradientTape() as tape:
            predicted = self._model(inputs, training=True)
            total = tf.reduce_sum(self._loss(labels, predicted))
            # The optimizer sums over the replicas, which all have `count` images.
            share = (total / count + sum(self._model.losses)) / self._replicas
            share = optimizer.scale_loss(share)
        optimizer.apply(tape.gradient(share, variables), variables)
        return tf.stack([total, tf.reduce_sum(_right(labels, predicted)), count])

    def _test_on(self, inputs: Any, labels: Any, counts: Any) -> Any:
        predicted = self._model(inputs, training=False)
        each = tf.stack([self._loss(labels, predicted), _right(labels, predicted), counts])
        return tf.linalg.matvec(each, counts)


def _right(labels: Any, predicted: Any) -> Any:
    return tf.cast(tf.argmax(predicted, -1) == tf.argmax(labels, -1), tf.float32)


def _measures(sums: Any) -> dict[str, float]:
    loss, right, count = (float(value) for value in sums)
    return {"accuracy": right / count, "loss": loss / count}
