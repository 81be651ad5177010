"""The training loop over several devices or machines, with `tf.distribute.Strategy.run`.

Keras' `fit` cannot train over several machines (https://github.com/keras-team/keras/issues/20585),
and over several devices it fails at batches that do not divide, and weighs images unevenly. In this
loop each image counts as on one device, whatever the size of a batch. It calls the same callbacks
with the same logs.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kerastl.distribute import distribute_batches, pad_batches


class SharedLoop:
    """Trains and measures a model whose strategy has several replicas.

    Args:
        model: compiled in the scope of its strategy, with a loss that is a mean over the images.
        class_weight: by the number of the class, as `fit` takes it, of all classes.
    """

    def __init__(self, model: keras.Model, class_weight: dict[int, float] | None = None):
        self._model = model
        self._weights = [weight for _, weight in sorted((class_weight or {}).items())]
        self._strategy = model.distribute_strategy
        self._replicas = int(self._strategy.num_replicas_in_sync)
        with self._strategy.scope():  # Keras makes the variables of metrics at their first use
            row = tf.zeros((1, model.output_shape[-1]))
            model.compute_metrics(None, row, row)
        self._train_next = self._on_next(self._train)
        self._test_next = self._on_next(self._test)

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
        """Train, and return the history: the loss and the metrics of the model an epoch.

        Args:
            train: `tf.data.Dataset` of the inputs and labels (one-hot, of classes) of the epochs
                from `initial_epoch` on, in batches for all replicas together.
            epochs: the number of the last one, from 1.
            steps: batches of an epoch.
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
        shares = self._shares(train)
        for epoch in range(initial_epoch, epochs):
            called.on_epoch_begin(epoch)
            self._model.reset_metrics()
            logs: dict[str, float] = {}
            for step in range(steps):
                called.on_train_batch_begin(step)
                logs = _as_floats(self._train_next(shares))
                called.on_train_batch_end(step, logs)
            if validation is not None:
                measured = self.evaluate(validation)
                logs |= {f"val_{name}": value for name, value in measured.items()}
            called.on_epoch_end(epoch, logs)
            if self._model.stop_training:
                break
        called.on_train_end()
        return dict(history.history)

    def evaluate(self, batches: Any) -> dict[str, float]:
        """Return loss and metrics on all images of a `tf.data.Dataset`, each counted once."""
        shares = self._shares(batches)
        self._model.reset_metrics()
        measured = {}
        for _ in range(int(batches.cardinality())):
            measured = self._test_next(shares)
        return _as_floats(measured)

    def _on_next(self, on_one: Any) -> Any:
        """Return a function that hands each replica its share and returns the measures so far."""

        def on_all(shares: Any) -> Any:
            self._strategy.run(on_one, args=next(shares))
            return self._model.get_metrics_result()

        return tf.function(on_all)

    def _shares(self, batches: Any) -> Any:
        """Return an iterator over what each replica gets of each batch."""
        return iter(distribute_batches(pad_batches(batches, self._replicas), self._strategy))

    def _train(self, inputs: Any, labels: Any, counts: Any) -> None:
        """Do the `train_step` of Keras on one replica, without the rows that fill up its share.

        A replica whose rows all do runs one of them for nothing: all have to sum their gradients.
        """
        model, optimizer = self._model, self._model.optimizer
        inputs, labels = _first((inputs, labels), tf.maximum(_number_there(counts), 1))
        # Keras takes the mean over the rows of a replica, and the mean of these means.
        weights = tf.fill(tf.shape(labels)[:1], tf.reduce_mean(counts))
        if self._weights:
            weights *= tf.gather(self._weights, tf.argmax(labels, -1))
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = model.compute_loss(inputs, labels, outputs, weights)
            scaled = optimizer.scale_loss(loss)
        variables = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        self._measure(labels, outputs, loss, counts)

    def _measure(self, labels: Any, outputs: Any, loss: Any, counts: Any) -> None:
        """Take the rows of a share that were there into loss and metrics."""
        num_there = _number_there(counts)

        def measure() -> Any:
            # `loss` is what these rows add to the mean over all; the tracker wants their own mean.
            mean = loss * self._replicas / tf.reduce_mean(counts)
            self._model.metrics[0].update_state(mean, sample_weight=num_there)
            self._model.compute_metrics(None, labels, outputs)
            return True

        tf.cond(num_there > 0, measure, lambda: False)

    def _test(self, inputs: Any, labels: Any, counts: Any) -> None:
        num_there = _number_there(counts)

        def measure() -> Any:
            self._model.test_step(_first((inputs, labels), num_there))
            return True

        tf.cond(num_there > 0, measure, lambda: False)


def _number_there(counts: Any) -> Any:
    return tf.math.count_nonzero(counts, dtype=tf.int32)


def _first(tensors: Any, num_rows: Any) -> Any:
    return tf.nest.map_structure(lambda tensor: tensor[:num_rows], tensors)


def _as_floats(measures: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in measures.items()}
