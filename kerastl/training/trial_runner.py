"""One short training after another over what the frozen stages made of the images once."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from kerastl.advice.probe import SoftmaxProbe, head_weights
from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import ImageData
from kerastl.data.split import Split
from kerastl.distribute import num_replicas, on_one_device, steps_an_epoch
from kerastl.errors import ArgumentError, DataError, TrainingError, WeightsError
from kerastl.frozen.activations import StoreChoice, extract_embeddings, image_size_of
from kerastl.frozen.report import StoreReport
from kerastl.model.freeze import freeze_to, inference_below, stages
from kerastl.model.heads import set_linear_head
from kerastl.model.optimizers import optimizer_variables, phase_optimizer
from kerastl.model.recipes import Phase, Recipe
from kerastl.training.callbacks import StopOnNonFinite
from kerastl.training.loop import SharedLoop
from kerastl.training.phases import schedule_of
from kerastl.training.stored import StoredPhase, store_phase
from kerastl.training.trials import COMPLETED, FAILED, Trial

# Not of one trial: every other one would fail the same way.
_OF_ALL_TRIALS = (ArgumentError, DataError, WeightsError)


class TrialRunner:
    """Trains one network again and again from the same start, at other depths and rates.

    A trial is a short `fine_tune`: the head starts from the probe, and the stages above the freeze
    depth train by the last phase of the recipe, from stored activations. It is scored on all
    validation images after its last epoch, so that no epoch is picked by them. Trials of one depth
    share the activations and one traced graph; after each, every weight is what it was before.

    Args:
        model: Of `build_transfer_model`.
        data: What is trained on.
        validation: What the trials are scored on.
        recipe: Its last phase is the pattern of the trials'.
        depths: The candidates. What a deeper one needs is derived from what is stored of the
            shallowest, so that the images go through the network once.
        store: As in `fine_tune`.
        engine: As in `fine_tune`.
    """

    def __init__(
        self,
        model: keras.Model,
        data: ImageData,
        validation: Split,
        recipe: Recipe,
        depths: Sequence[int] = (),
        *,
        store: StoreChoice = "default",
        engine: str = "auto",
    ):
        self.model, self.data, self.validation, self.recipe = model, data, validation, recipe
        self.report = StoreReport()
        self._how: dict[str, Any] = {"store": store, "engine": engine, "report": self.report}
        self._num_stages = len(stages(model))
        self._start: list[np.ndarray] = []
        self._benches: dict[int, _Bench] = {}
        self._inputs: dict[tuple[int, int], StoredPhase] = {}
        self._shallowest = min((d for d in depths if 0 < d < self._num_stages), default=0)

    def run(self, depth: int, learning_rate: float | None, epochs: int) -> Trial:
        """Return a trial; what goes wrong in it alone is the reason of a failed one.

        Args:
            depth: How many stages do not train; the number of stages for the head alone.
            learning_rate: The peak rate; None for the head alone.
            epochs: Passes over the training images; 0 for the head alone.
        """
        started = time.perf_counter()
        found: dict[str, Any]
        try:
            self._fit_head()
            found = {"status": COMPLETED, **self._measured(depth, learning_rate, epochs)}
        except _OF_ALL_TRIALS:
            raise
        except Exception as error:  # one trial that fails is no reason to lose the others
            found = {"status": FAILED, "reason": f"{type(error).__name__}: {error}"}
            self._benches.pop(depth, None)
        self.restore()
        seconds = time.perf_counter() - started
        return Trial(depth, learning_rate, epochs, seconds=seconds, **found)

    def restore(self) -> None:
        """Give the model back every weight, and every state of a random layer, of the start."""
        if self._start:
            _assign(self.model.variables, self._start)

    def _fit_head(self) -> None:
        """Start the head from a probe, once, as the first phase of LP-FT does."""
        keras.utils.set_random_seed(self.recipe.seed)
        if self._start:
            return
        flipped = AUGMENTATIONS[self.recipe.augmentation].flip
        how = {"batch_size": self.recipe.batch_size, **self._how}
        x, y = extract_embeddings(self.model, self.data.train, flipped=flipped, **how)
        groups = np.tile(np.arange(len(self.data.train)), 1 + flipped)
        probe = SoftmaxProbe(seed=self.recipe.seed).fit(x, y, groups)
        set_linear_head(self.model, *head_weights(probe, self.data.num_classes))
        self._start = [np.array(variable) for variable in self.model.variables]

    def _measured(self, depth: int, rate: float | None, epochs: int) -> dict[str, Any]:
        if rate is None:
            how = {"batch_size": self.recipe.batch_size, **self._how}
            x, _ = extract_embeddings(self.model, self.validation, **how)
            probabilities = np.asarray(self.model.get_layer("head")(x))
        else:
            probabilities = self._train(depth, rate, epochs)
        return measured(probabilities, self.validation.labels)

    def _train(self, depth: int, rate: float, epochs: int) -> np.ndarray:
        """Return the probabilities of the validation images after a short training."""
        phase = dataclasses.replace(
            self.recipe.phases[-1], freeze_depth=depth, learning_rate=rate, epochs=epochs
        )
        freeze_to(self.model, depth)
        inputs = self._inputs.get((depth, epochs)) or self._phase(depth, epochs)
        self._inputs[depth, epochs] = inputs
        bench = self._benches.get(depth) or _bench(self.model, inputs.suffix, phase, self.recipe)
        self._benches[depth] = bench
        _assign(bench.state, bench.start)
        replicas = num_replicas(self.model)
        steps = steps_an_epoch(len(self.data.train), self.recipe.batch_size, replicas)
        watch = [SetRates(phase, steps * epochs), StopOnNonFinite(phase.name, rate)]
        with inference_below(self.model, depth):
            if bench.loop is not None:
                bench.loop.fit(inputs.train, epochs=epochs, steps=steps, callbacks=watch)
            else:
                bench.trained.fit(
                    inputs.train, epochs=epochs, steps_per_epoch=steps, callbacks=watch,
                    shuffle=False, verbose=0,
                )  # fmt: skip
            alone = on_one_device(bench.trained)
            return np.asarray(alone.predict(inputs.validation, verbose=0))

    def _phase(self, depth: int, epochs: int) -> StoredPhase:
        """Return stored activations, or the images where nothing is frozen or kept."""
        if self._how["store"] is not None:
            how = {"epochs": epochs, "dtype": "float16", **self._how}
            if 0 < self._shallowest < depth and not self._inputs:
                store_phase(self.model, self.data, self.recipe, depth=self._shallowest, **how)
            stored = store_phase(self.model, self.data, self.recipe, depth=depth, **how)
            if stored is not None:
                return stored
        size, batch_size = image_size_of(self.model), self.recipe.batch_size
        augmentation = dataclasses.replace(
            AUGMENTATIONS[self.recipe.augmentation], mixup_alpha=self.recipe.mixup_alpha
        )
        train = self.data.train.batches(
            size, batch_size, shuffle=True, seed=self.recipe.seed, epochs=epochs,
            augmentation=augmentation, one_hot=True,
        )  # fmt: skip
        validation = self.validation.batches(size, batch_size, one_hot=True)
        with self.model.distribute_strategy.scope():
            # A network of its own, since `freeze_to` undoes the compilation of the model.
            whole = keras.Model(self.model.inputs, self.model.outputs[0])
        return StoredPhase(whole, train, validation)


class _Bench(NamedTuple):
    """A compiled network that trains from one depth, with its optimizer's variables as built.

    `loop` trains it where several devices do.
    """

    trained: keras.Model
    loop: SharedLoop | None
    state: list[Any]
    start: list[np.ndarray]


def _bench(model: keras.Model, trained: keras.Model, phase: Phase, recipe: Recipe) -> _Bench:
    smoothed = {"label_smoothing": recipe.label_smoothing}
    loop = None
    with model.distribute_strategy.scope():
        optimizer = phase_optimizer(model, phase, phase.learning_rate)
        trained.compile(optimizer, loss=keras.losses.CategoricalCrossentropy(**smoothed))
        trained.optimizer.build(trained.trainable_variables)
    if num_replicas(model) > 1:
        each = keras.losses.CategoricalCrossentropy(reduction=None, **smoothed)
        loop = SharedLoop(trained, each)
    state = optimizer_variables(trained.optimizer)
    return _Bench(trained, loop, state, [np.array(variable) for variable in state])


class SetRates(keras.callbacks.Callback):  # type: ignore[misc]
    """Set the rate of each step from outside of the graph, so that one graph serves all rates."""

    def __init__(self, phase: Phase, total_steps: int):
        super().__init__()
        schedule = schedule_of(phase, total_steps)
        self._rates = [
            float(schedule(step) if callable(schedule) else schedule) for step in range(total_steps)
        ]
        self._step = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the rate of the step."""
        self.model.optimizer.learning_rate = self._rates[self._step]
        self._step += 1


def measured(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return accuracy, loss and which answers are right, as a `Trial` holds them."""
    if not np.isfinite(probabilities).all():
        raise TrainingError("The network answers with values that are no numbers.")
    of_label = probabilities[np.arange(len(labels)), labels]
    right = probabilities.argmax(1) == labels
    loss = float(-np.log(np.maximum(of_label, 1e-7)).mean())
    return {"accuracy": float(right.mean()), "loss": loss, "right": right}


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
