"""`RunSettings`: the settings of a run, as one frozen record."""

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

from kerastl._checks import check_choice, check_float, check_int
from kerastl._task import DEFAULT_TASK, check_task, find_task
from kerastl.backbones.given_models import OWN_WEIGHTS
from kerastl.backbones.saved_model_backbone import is_saved_model
from kerastl.backbones.weights import EMBEDDED_SPEC, resolve_name
from kerastl.data.options import NO_OPTIONS, DataOptions, usual_resize
from kerastl.errors import ArgumentError
from kerastl.model.head_names import check_head
from kerastl.model.recipes import (
    AUGMENTATION_NAMES,
    OBJECTIVES,
    PRECISIONS,
    PUBLISHED,
    SCENARIOS,
    Recipe,
)
from kerastl.results.run_files import Json, read_recipe
from kerastl.training.oracles import check_search

AUTO = "auto"
DEFAULT_BACKBONE = "MobileNetV2"
# What a head of all stages reads of two views of each, of ResNet50: three gigabytes.
MOST_IMAGES_OF_ALL_STAGES = 50_000


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run, as for `kerastl.train`, with defaults filled in.

    A resumed run must be asked for the same. Its images may have moved, so they are compared by
    their fingerprint, not by their path.

    Raises:
        ArgumentError: a value cannot be meant, or two exclude one another.
        DataError: the recipe cannot be read.
        WeightsError: the backbone is a path, and there is no model.
    """

    data: str  # where the images come from, as `load_data` takes it, or what they are in words
    test: str | None = None  # the same of other test images
    on_bad: str = "error"
    options: DataOptions = NO_OPTIONS  # how to read the data
    backbone: str = ""  # "": the recipe's, or MobileNetV2 (of width 0.35 with embedded weights)
    weights: str = ""  # "": the recipe's, "imagenet", or an earlier model's own
    head: str = ""  # "": the recipe's, or what the task has
    scenario: str = ""  # "": "auto", where there is no recipe
    recipe: Recipe | None = None
    recipe_path: str | None = None  # the run directory or file to read the recipe from
    image_size: tuple[int, int] | int | None = None  # None: the recipe's, or the backbone's own
    image_sizes: tuple[int, ...] | None = None
    epochs: int | None = None
    augmentation: str | None = None
    balance: str | float | None = None  # None: the recipe's; "auto": 1 where classes are uneven
    objective: str = ""  # "": the recipe's, or accuracy
    seed: int = -1  # -1: the recipe's, or 0
    task: str = ""  # "": the recipe's, or classification
    precision: str = ""  # "": the recipe's, or float32
    accumulate: int | None = None  # None: the recipe's, or 1
    # None: the recipe's.
    batch_size: int | None = None
    patience: int | None = None
    validation_fraction: float | None = None
    learning_rate: float | None = None  # of the phases that open stages, as `freeze_depth`
    freeze_depth: int | None = None

    def __post_init__(self) -> None:
        if self.scenario and (self.recipe or self.recipe_path):
            raise ArgumentError("Pass a scenario or a recipe (`--scenario`, `--recipe`), not both.")
        if self.recipe_path:
            self._fill(recipe=read_recipe(self.recipe_path))
        recipe = self.recipe
        backbone, weights = choose_backbone(self.backbone, self.weights, recipe)
        size: Any = self.image_size
        if size is None and recipe is not None:
            size = recipe.image_size
        size = (size, size) if isinstance(size, int) else None if size is None else tuple(size)
        self._fill(backbone=backbone, weights=weights, image_size=size)
        if self.seed == -1:
            self._fill(seed=0 if recipe is None else recipe.seed)
        self._fill(task=self.task or (DEFAULT_TASK if recipe is None else recipe.task))
        if recipe is None and not self.scenario:
            self._fill(scenario=AUTO)
        self._check()
        resize = self.options.resize or (recipe.resize if recipe else None)
        resize = resize or usual_resize(find_task(self.task).has_one_class)
        self._fill(options=dataclasses.replace(self.options, resize=resize))

    def _fill(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check(self) -> None:
        check_choice("on_bad", self.on_bad, ("error", "skip"))
        check_task(self.task)
        if self.recipe is not None and self.recipe.task != self.task:
            raise ArgumentError(
                f"the recipe has the task {self.recipe.task}: pass --task {self.recipe.task}."
            )
        if self.scenario:
            check_choice("scenario", self.scenario, (AUTO, *SCENARIOS, *PUBLISHED))
        if self.head:
            check_head("head", self.head)
        if self.augmentation is not None:
            check_choice("augmentation", self.augmentation, AUGMENTATION_NAMES)
        if self.objective:
            check_choice("objective", self.objective, OBJECTIVES)
        if self.precision:
            check_choice("precision", self.precision, PRECISIONS)
        least = {"epochs": 1, "accumulate": 1, "batch_size": 1, "patience": 1, "freeze_depth": 0}
        for name, lowest in least.items():
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), lowest)
        if self.learning_rate is not None:
            check_float("learning_rate", self.learning_rate, 0.0, exclusive=True)
        if self.validation_fraction is not None:
            check_float("validation_fraction", self.validation_fraction, 0.0, 0.9)
        check_int("seed", self.seed, 0, 2**31 - 1)
        if self.balance not in (None, "auto"):
            check_float("balance", self.balance, 0.0, 1.0)
        if self.image_sizes is not None:
            if self.image_size is not None:
                raise ArgumentError("Pass `image_size` or `image_sizes`, not both.")
            self._check_sizes()

    def _check_sizes(self) -> None:
        """Check that sizes can be measured."""
        if self.scenario != AUTO:
            raise ArgumentError("--image-sizes needs --scenario auto, which measures them.")
        if self.weights == "random":
            raise ArgumentError("--image-sizes needs pretrained weights.")

    def recipe_fields(self, num_images: int) -> Json:
        """Return the fields of `Recipe` in these settings, for this number of training images."""
        names = ["backbone", "weights", "seed", "task"]
        given = ["augmentation", "objective", "precision", "accumulate"]
        given += ["batch_size", "patience", "validation_fraction"]
        names += [name for name in given if getattr(self, name) not in (None, "")]
        names += ["image_size"] if self.image_sizes is None else []
        of_images = {"head": self.head_of(num_images), "resize": self.options.rules.resize}
        return {name: getattr(self, name) for name in names} | of_images

    def validation_share(self) -> float:
        """Return the share of the training images to choose by."""
        if self.validation_fraction is not None:
            return self.validation_fraction
        return 0.15 if self.recipe is None else self.recipe.validation_fraction

    def head_of(self, num_images: int) -> str:
        """Return the kind of head for this number of training images.

        Published recipes have the head they were published with.
        """
        if self.head or self.recipe is not None:
            return self.head or self.recipe.head  # type: ignore[union-attr]
        ours = self.scenario in (AUTO, *SCENARIOS) and self.weights != "random"
        few = num_images <= MOST_IMAGES_OF_ALL_STAGES
        return find_task(self.task).usual_head if ours and few else "linear"

    def source(self) -> Json:
        """Return what `recipe.json` keeps of where the images came from."""
        how = self.options.to_dict()
        return {"data": self.data, "test": self.test, "on_bad": self.on_bad, "options": how}

    def to_dict(self) -> Json:
        """Return plain values that JSON can hold, but for where images and recipe came from."""
        values = dataclasses.asdict(self)
        for name in (*self.source(), "recipe_path"):
            del values[name]
        plain: Json = json.loads(json.dumps(values))
        return plain


@dataclass(frozen=True)
class SearchSettings(RunSettings):
    """The settings of a search that ends in a run, as for `kerastl.search`."""

    tuner: str = "halving"
    max_trials: int = 20
    budget: float | None = None
    workers: int = 0  # processes of this machine that run the trials; 0 for this one alone
    more_backbones: tuple[str, ...] = ()  # to choose from, besides `backbone`

    def _check(self) -> None:
        if self.scenario == AUTO:
            self._fill(scenario="large_different")
        super()._check()
        check_search(self.tuner, self.max_trials, self.budget)
        check_int("workers", self.workers, 0)
        for name in self.more_backbones:
            choose_backbone(name, self.weights)
        if self.more_backbones and self.workers:
            raise ArgumentError("--workers share the trials of one backbone: give one --backbone.")

    def _check_sizes(self) -> None:
        """A search always measures them."""


def choose_backbone(
    backbone: str | None = "", weights: str | None = "", recipe: Recipe | None = None
) -> tuple[str, str]:
    """Return a backbone and its weights, with what was left out filled in; nothing is loaded.

    An earlier model keeps its own weights, and the embedded weights are of `MobileNetV2` of width
    0.35. A `WeightsError` says that a path holds no model, an `ArgumentError` that a name is none.
    """
    backbone = os.fspath(backbone) if isinstance(backbone, os.PathLike) else backbone
    if not (backbone is None or isinstance(backbone, str)):
        raise ArgumentError(
            f"`backbone` must be a name or a path. Received: {type(backbone).__name__}. Save "
            "your own model and pass its file: `model.save('mine.keras')`."
        )
    if not weights and backbone and is_saved_model(backbone):
        weights = OWN_WEIGHTS
    if recipe is not None:
        backbone, weights = backbone or recipe.backbone, weights or recipe.weights
    if not backbone:
        backbone = EMBEDDED_SPEC if weights == "embedded" else DEFAULT_BACKBONE
    resolve_name(backbone)
    return backbone, weights or "imagenet"
