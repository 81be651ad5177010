"""Which devices a model trains on, and batches that they can share out evenly."""

from typing import Any

import keras
import tensorflow as tf

from kerastl._checks import check_choice
from kerastl.errors import ArgumentError

STRATEGIES = ("none", "mirrored")
NOT_BY_FIT = (
    tf.distribute.MultiWorkerMirroredStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
)


def resolve_strategy(strategy: Any) -> Any:
    """Return the strategy that a name stands for, or the default one, which is one device.

    Args:
        strategy: None or `"none"`; `"mirrored"` for all GPUs of this machine
            (`tf.distribute.MirroredStrategy`); or a `tf.distribute.Strategy` of one machine.

    Raises:
        ArgumentError: another name, or a strategy with which Keras 3 cannot train.
    """
    if strategy is None or strategy == "none":
        return tf.distribute.get_strategy()
    if isinstance(strategy, NOT_BY_FIT):
        raise ArgumentError(
            "Keras 3 cannot train over several machines by `fit` "
            "(https://github.com/keras-team/keras/issues/20585). Received: "
            f"{type(strategy).__name__}. Use `strategy='mirrored'` for the GPUs of one machine."
        )
    if isinstance(strategy, tf.distribute.Strategy):
        return strategy
    check_choice("strategy", strategy, STRATEGIES)
    return tf.distribute.MirroredStrategy()


def num_replicas(model: keras.Model) -> int:
    """Return how many devices share each batch of a model; 1 unless it was built in a scope."""
    return int(model.distribute_strategy.num_replicas_in_sync)


def on_one_device(model: keras.Model) -> keras.Model:
    """Return a model to predict with batch by batch: itself, or one that shares its weights.

    Under a strategy `predict_on_batch` hands the whole batch to every replica.
    """
    return model if num_replicas(model) == 1 else keras.Model(model.inputs, model.outputs)


def summed_over_replicas(gradients: list[Any]) -> tuple[list[Any], int]:
    """Return the gradients of the whole batch and of how many replicas they are the sum."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients, 1
    known = [gradient for gradient in gradients if gradient is not None]
    whole = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, known))
    filled = [gradient if gradient is None else next(whole) for gradient in gradients]
    return filled, context.num_replicas_in_sync


def check_shares(batch_size: int, num_images: int, replicas: int) -> int:
    """Return the batch size, or the next lower (at least one image a replica) that divides evenly.

    Raises:
        ArgumentError: there are fewer training images than replicas.
    """
    if num_images < replicas:
        raise ArgumentError(
            f"{replicas} devices cannot share {num_images} training images. Train on one device: "
            "leave `strategy` out."
        )
    return max(batch_size - batch_size % replicas, replicas)


def steps_an_epoch(num_images: int, batch_size: int, replicas: int) -> int:
    """Return how many batches `even_batches` leaves of an epoch."""
    whole, rest = divmod(num_images, batch_size)
    return whole + (rest >= replicas)


def even_batches(batches: Any, replicas: int) -> Any:
    """Cut what does not divide by the replicas off each batch of a `tf.data.Dataset`.

    A gradient is the mean over the replicas, so each has to hold as many images; and Keras fails
    where one holds none. Only the last batch of an epoch is ever short, and loses fewer images
    than there are replicas, others in each epoch.
    """
    if replicas == 1:
        return batches

    def cut(*elements: Any) -> Any:
        size = tf.shape(tf.nest.flatten(elements)[0])[0]
        return tf.nest.map_structure(lambda tensor: tensor[: size - size % replicas], elements)

    # An eager map would lose the shapes that are known but for the batch; slicing keeps them.
    return batches.map(cut).filter(lambda *e: tf.shape(tf.nest.flatten(e)[0])[0] > 0)


def filled_batches(batches: Any, replicas: int) -> Any:
    """Fill each batch of inputs, by repeating its last row, up to a multiple of the replicas."""

    def fill(inputs: Any) -> Any:
        def longer(tensor: Any) -> Any:
            missing = -tf.shape(tensor)[0] % replicas
            return tf.concat([tensor, tf.repeat(tensor[-1:], missing, axis=0)], axis=0)

        return tf.nest.map_structure(longer, inputs)

    return batches.map(lambda inputs, _: fill(inputs))
