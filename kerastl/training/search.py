"""Searches a freeze depth and a learning rate, for about the cost of one training."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import keras

from kerastl._atomic import atomic_write_json
from kerastl._checks import check_tensorflow
from kerastl._steps import say
from kerastl._task import check_supports, find_task
from kerastl.advice.diagnosis import MAX_DIAGNOSED, diagnose
from kerastl.advice.sample import sample_of
from kerastl.advice.sizes import Size, SizeProbe, check_mutually_exclusive, chosen_size, probe_sizes
from kerastl.data.load import ImageData
from kerastl.distribute import resolve_strategy
from kerastl.errors import ArgumentError, DataError, TrainingError
from kerastl.frozen.fingerprint import network_hash
from kerastl.frozen.prefixes import embedding_network, image_size_of
from kerastl.frozen.runtime import FrozenRuntime, StoreChoice, open_runtime
from kerastl.machines import place_of
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import stages
from kerastl.model.recipes import Recipe
from kerastl.training.fine_tune import fine_tune, resolve_recipe
from kerastl.training.hparams import write_hparams
from kerastl.training.oracles import SearchSpace, candidate_depths, check_search, make_oracle
from kerastl.training.search_backbones import search_backbones
from kerastl.training.search_result import SearchResult, corrected_for_picking, line_of
from kerastl.training.shared_tuner import Progress, SharedTuner
from kerastl.training.trial_runner import TrialRunner
from kerastl.training.trials import (
    DIAGNOSIS_FILE,
    Trial,
    TrialLog,
    best_of,
    describe_trial,
    read_json,
)
from kerastl.training.workers import (
    ADDRESS,
    CHIEF,
    PORT,
    Role,
    Team,
    is_loopback,
    role_of_this_process,
)

PATTERN = "large_different"  # LP-FT with one rate for all stages: depth and rate are searched


def search(
    data: ImageData,
    backbone: str | keras.Model | Sequence[str] = "MobileNetV2",
    *,
    weights: str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    image_sizes: Sequence[int | tuple[int, int]] | None = None,
    head: str = "linear",
    tuner: str = "halving",
    max_trials: int = 20,
    budget: float | None = None,
    space: SearchSpace | None = None,
    recipe: Recipe | str = PATTERN,
    directory: str | Path | None = None,
    seed: int = 0,
    strategy: Any = None,
    train_best: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    store: StoreChoice = "default",
    engine: str = "auto",
    verbose: bool = True,
) -> SearchResult:
    """Search the freeze depth and the learning rate of fine-tuning.

    First, a diagnosis ranks the depths with one pass over the images and keeps at most four. The
    trials are short trainings with one depth and rate, all from the same fitted head. Their score
    on the validation images is the accuracy for classes, the mean average precision for several
    labels, and R² for regression. The frozen stages run once for all trials with the same depth.
    The best trial is then trained in full.

    Several processes can share the trials, with the variables of KerasTuner
    (https://keras.io/keras_tuner/guides/distributed_tuning/): each process makes the same call with
    a shared `directory`. The process whose `KERASTUNER_TUNER_ID` is "chief" distributes the trials
    and trains the best one; the others run trials. If a worker dies, another worker gets its trial.

    Args:
        data: the result of `load_data`, with validation images.
        backbone: as for `build_transfer_model`; or several names, which share the trials: a probe
            of each ranks them, and at most three, all within two standard errors of the best, are
            searched.
        weights: as for `build_transfer_model`, for all backbones.
        image_size: height and width in pixels. Default: the backbone's native size.
        image_sizes: several sizes instead of one, for the name of a backbone: the diagnosis chooses
            one, as in `diagnose`, and all trials use it.
        head: `"linear"` or `"stages"`, as for `build_transfer_model`.
        tuner: `"halving"` trains every depth and rate for a few epochs and the best third longer;
            `"random"`, `"hyperband"` and `"bayesian"` are KerasTuner's oracles on the same trials.
        max_trials: maximum number of trials, at least 1.
        budget: time in seconds after which no trial starts, including the earlier time of a resumed
            search. Default: no limit.
        space: depths, rates and epochs; see `SearchSpace`.
        recipe: a `Recipe`, or the name of a recipe, with a probe phase and then a phase that trains
            by gradients. It sets augmentation, batch size and decays.
        directory: folder for finished trials, and for their TensorBoard HParams in `logs/`. A
            search with the same arguments and images continues from there, with the same result as
            without a stop; a different search raises an error. Default: nothing is stored.
        seed: random seed of the tuner and of every trial.
        strategy: as for `build_transfer_model`: each trial runs on all devices of one machine.
        train_best: train the best recipe in full, with `fine_tune`.
        on_progress: function that is called with a `Progress` after each trial.
        store: as in `fine_tune`.
        engine: as in `fine_tune`.
        verbose: write one line per trial, and the progress of the last training, to stderr.

    Returns:
        A `SearchResult`; print it, or use `result.recipe` and `result.model`.

    Raises:
        ArgumentError: an argument is invalid.
        DataError: there are no validation images, or the directory contains a different search.
        TrainingError: no trial was completed; the error lists the reasons.

    Example:
        >>> result = kerastl.search(data, "MobileNetV2", directory="searches/flowers")
        >>> print(result)
        >>> kerastl.evaluate(result.model, data.test)
    """
    check_tensorflow("`search`")
    check_supports(data.task, "search")
    started = time.perf_counter()
    place = None if directory is None else Path(directory)
    if not isinstance(backbone, (str, keras.Model)):
        if image_sizes is not None:
            raise ArgumentError("`image_sizes` go with one backbone. Give `image_size` instead.")
        return search_backbones(
            search, data, backbone, weights=weights, image_size=image_size, head=head, tuner=tuner,
            max_trials=max_trials, budget=budget, space=space, recipe=recipe, directory=place,
            seed=seed, strategy=strategy, train_best=train_best, on_progress=on_progress,
            store=store, engine=engine, verbose=verbose,
        )  # fmt: skip
    asked = SearchArguments(
        data, backbone, weights, image_size, image_sizes, tuner, max_trials, budget,
        space or SearchSpace(), place, seed,
        open_runtime(store, engine),
    )  # fmt: skip
    role, team = _role(asked.directory)
    with _membership(role, team):
        size, sizes = _size(asked)
        keras.utils.set_random_seed(seed)
        model = build_transfer_model(
            backbone, data.num_classes, weights=weights, image_size=size,
            head=head, class_names=data.class_names, strategy=_of_one_machine(strategy),
            channels=data.train.channels, task=data.task,
        )  # fmt: skip
        num_stages = len(stages(model))
        depths = asked.space.checked_depths(num_stages)
        pattern = _pattern(asked, recipe, model)
        log = TrialLog(asked.directory, asked.identity(pattern, model), role.name)
        found = _diagnosis(asked, model, sizes)
        different = found["similarity"]["different"]
        depths = depths or candidate_depths(num_stages, found["best_stage"], different)
        seconds = {"diagnosis": time.perf_counter() - started}
        runtime = dataclasses.replace(
            asked.runtime, batch_size=pattern.batch_size, strategy=model.distribute_strategy
        )
        shared = SharedTuner(
            make_oracle(
                tuner, depths, num_stages, asked.space, max_trials, seed, asked.num_validation
            ),
            TrialRunner(model, data, pattern, runtime, depths),
            log,
            asked.space.max_epochs,
            started,
            budget,
            _tell(on_progress, verbose and not role.is_worker),
        )
        if role.is_chief:
            shared.serve(team)
        else:
            shared.search()
    log.read_new()
    if log.directory is not None and not role.is_worker:
        write_hparams(log.directory, log.trials)
    best = best_of(log.trials)
    completed = [trial for trial in log.trials if trial.is_completed]
    chosen = _recipe_of(best, pattern, len(log.trials), tuner)
    seconds["trials"] = sum(trial.seconds for trial in log.trials)
    history, lap = None, time.perf_counter()
    train_best = train_best and not role.is_worker
    if train_best:
        history = fine_tune(model, data, recipe=chosen, verbose=verbose, store=store, engine=engine)
        seconds["train"] = time.perf_counter() - lap
    return SearchResult(
        trials=tuple(log.trials),
        best=best,
        corrected=corrected_for_picking(completed, seed),
        recipe=chosen,
        model=model if train_best else None,
        history=history,
        task=data.task,
        diagnosis=found,
        depths=depths,
        seconds=seconds,
    )


@dataclass(frozen=True)
class SearchArguments:
    """The settings of a search; the fields are the arguments of `search`."""

    data: ImageData
    backbone: str | keras.Model
    weights: str | os.PathLike[str]
    image_size: Size | None
    image_sizes: Sequence[Size] | None
    tuner: str
    max_trials: int
    budget: float | None
    space: SearchSpace
    directory: Path | None
    seed: int
    runtime: FrozenRuntime

    def __post_init__(self) -> None:
        check_search(self.tuner, self.max_trials, self.budget)
        if not self.num_validation:
            raise DataError(
                "A search needs validation images, but there are none. Load the data with "
                "`validation_fraction` above 0."
            )

    @property
    def num_validation(self) -> int:
        """How many validation images there are."""
        return len(self.data.validation or ())

    @property
    def diagnosis_file(self) -> Path | None:
        """Where the directory keeps the diagnosis."""
        return None if self.directory is None else self.directory / DIAGNOSIS_FILE

    def identity(self, pattern: Recipe, model: keras.Model) -> dict[str, Any]:
        """Return all that a trial depends on, as plain values."""
        sizes = {}
        if self.image_sizes is not None:
            sizes["image_sizes"] = [str(size) for size in self.image_sizes]
        return {
            "tuner": self.tuner,
            "max_trials": self.max_trials,
            "space": dataclasses.asdict(self.space),
            **sizes,
            "recipe": pattern.to_dict(),
            "data": self.data.fingerprint(),
            "network": network_hash(embedding_network(model)),
        }


def _of_one_machine(strategy: Any) -> Any:
    """Return the resolved strategy; raise an `ArgumentError` if it is of several machines."""
    resolved = resolve_strategy(strategy)
    if place_of(resolved).machines > 1:
        raise ArgumentError(
            "A search on several machines distributes whole trials, not the images of one "
            "trial. Give each machine a role with the variables of KerasTuner "
            "(https://keras.io/keras_tuner/guides/distributed_tuning/). For several GPUs of "
            "one machine, use 'mirrored'."
        )
    return None if strategy is None else resolved


def _role(directory: Path | None) -> tuple[Role, Team]:
    """Return what this process does, and the others of the search."""
    role = role_of_this_process()
    if role.name and directory is None:
        raise ArgumentError(
            "A search over several processes needs a `directory` that all processes can "
            "use, for the trials. Received: directory=None"
        )
    if role.is_chief and not is_loopback(os.environ[ADDRESS]):
        say(
            f"Warning: the search listens on {os.environ[ADDRESS]}:{os.environ[PORT]} "
            "without authentication or encryption. Everyone who can reach this port can "
            "read and change the search: use it only in a network that you trust."
        )
    return role, Team(directory or Path())


@contextlib.contextmanager
def _membership(role: Role, team: Team) -> Iterator[None]:
    """Be in the team of a search while the block runs; a worker first waits for the chief."""
    if not role.name:
        yield
    elif role.is_chief:
        team.forget_lost()
        with team.member(CHIEF):
            yield
    else:
        team.wait_for(CHIEF, team.folder.parent / DIAGNOSIS_FILE)
        try:
            with team.member(role.name, needs=CHIEF):
                yield
        except (KeyboardInterrupt, grpc.RpcError) as error:
            if isinstance(error, KeyboardInterrupt) and not team.is_lost(CHIEF):
                raise
            raise TrainingError(
                "The chief of the search has ended. Start it again with the same directory, "
                "and then the workers; finished trials are kept."
            ) from error


def _pattern(asked: SearchArguments, recipe: Recipe | str, model: keras.Model) -> Recipe:
    """Return the recipe whose last phase the trials vary."""
    data, num_stages = asked.data, len(stages(model))
    recipe = resolve_recipe(recipe, model, data)
    if [phase.method for phase in recipe.phases] != ["probe", "gradient"] or recipe.cut is not None:
        raise ArgumentError(
            "A search needs a recipe with a phase of method 'probe', then a phase of method "
            "'gradient', and no cut, such as 'large_similar' or 'large_different'. "
            f"Received: {recipe.name!r} with {[phase.method for phase in recipe.phases]}, "
            f"cut={recipe.cut}."
        )
    head = dataclasses.replace(recipe.phases[0], freeze_depth=num_stages)
    return dataclasses.replace(
        recipe,
        phases=(head, recipe.phases[1]),
        seed=asked.seed,
        weights=str(asked.weights),
        image_size=image_size_of(model),
        backbone=asked.backbone if isinstance(asked.backbone, str) else recipe.backbone,
    )


def _size(asked: SearchArguments) -> tuple[Size | None, tuple[SizeProbe, ...]]:
    """Return the size to search at, and what was measured for it in this process."""
    if asked.image_sizes is None:
        return asked.image_size, ()
    check_mutually_exclusive(asked.image_size, asked.image_sizes)
    if asked.diagnosis_file is not None and asked.diagnosis_file.exists():
        found = read_json(asked.diagnosis_file)
        return tuple(found["similarity"]["image_size"]), ()
    sample = sample_of(find_task(asked.data.task), asked.data.train, MAX_DIAGNOSED, asked.seed)
    probes = probe_sizes(
        asked.backbone, asked.data.num_classes, sample, asked.image_sizes,
        task=asked.data.task, weights=asked.weights, seed=asked.seed, runtime=asked.runtime,
    )  # fmt: skip
    return chosen_size(probes).image_size, probes


def _diagnosis(
    asked: SearchArguments, model: keras.Model, sizes: tuple[SizeProbe, ...]
) -> dict[str, Any]:
    """Return the diagnosis as plain values, measured once for a directory."""
    file = asked.diagnosis_file
    if file is not None and file.exists():
        found: dict[str, Any] = read_json(file)
        return found
    runtime = asked.runtime
    measured = diagnose(
        model, asked.data, seed=asked.seed, store=runtime.store, engine=runtime.engine
    )
    found = json.loads(json.dumps(dataclasses.replace(measured, sizes=sizes).to_dict()))
    if file is not None:
        atomic_write_json(file, found)
    return found


def _recipe_of(best: Trial, pattern: Recipe, num_trials: int, tuner: str) -> Recipe:
    """Return the full training of a trial."""
    phases = pattern.phases[:1]
    if best.learning_rate is not None:
        last = dataclasses.replace(
            pattern.phases[-1], freeze_depth=best.freeze_depth, learning_rate=best.learning_rate
        )
        phases = (*phases, last)
    reason = f"Best of {num_trials} trials ({tuner}): {describe_trial(best)}."
    return dataclasses.replace(pattern, phases=phases, reason=reason)


def _tell(
    on_progress: Callable[[Progress], None] | None, verbose: bool
) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if verbose:
            line = line_of(progress.trial)
            done = f"{progress.num_ended} of {progress.num_planned}"
            say(f"trial {done}: {line}; {progress.seconds_left:.0f} s left")
        if on_progress is not None:
            on_progress(progress)

    return tell
