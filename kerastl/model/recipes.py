"""`Recipe`, the frozen record of every number of a run, and the published recipes.

A scenario or recipe name becomes numbers by `make_recipe`, which knows the number of stages, images
and classes. Where each number comes from stands in `kerastl.model.sources`.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerastl._checks import check_choice, check_float, check_int
from kerastl._records import from_dict
from kerastl._shown import Shown
from kerastl._task import DEFAULT_TASK, check_task, find_task
from kerastl._typed import typed
from kerastl.data.options import RESIZES
from kerastl.errors import ArgumentError
from kerastl.model.head_names import check_head, hidden_units
from kerastl.model.recipe_names import AUGMENTATION_NAMES as AUGMENTATION_NAMES
from kerastl.model.recipe_names import OBJECTIVES as OBJECTIVES
from kerastl.model.recipe_names import PRECISIONS as PRECISIONS
from kerastl.model.recipe_names import PUBLISHED as PUBLISHED
from kerastl.model.recipe_names import SCENARIOS as SCENARIOS

METHODS = ("probe", "gradient")
SCHEDULES = ("cosine", "one_cycle", "constant", "step")
OPTIMIZERS = ("adam", "adamw", "sgd")

SMALL_IMAGES = 1000
SMALL_IMAGES_PER_CLASS = 50
MIXUP_IMAGES = 20_000
FINE_TUNE_STEPS = 400
HEAD_PHASE = "head"


@typed
@dataclass(frozen=True)
class Phase:
    """One phase of training with a fixed set of open stages.

    Args:
        name: `"head"` or `"fine_tune"`; the keys of the timing table.
        freeze_depth: how many stages, from the input, do not train.
        method: `"probe"` fits only the head, in closed form, to embeddings of the frozen backbone;
            `"gradient"` trains like `fit`.
        epochs: passes over the training images (`"gradient"` only).
        optimizer: `"adam"`, `"adamw"` or `"sgd"` (momentum 0.9).
        learning_rate: the peak rate of the head.
        backbone_rate: the rate of the last stage as a multiple of the head's.
        layer_decay: the rate of each stage as a fraction of the stage above it.
        schedule: `"cosine"`, `"one_cycle"`, `"constant"`, or `"step"` (a tenth at 30, 60, 90 %).
        warmup: the fraction of the steps in which the rate rises from zero.
        weight_decay: decoupled, kernels only.
        clipnorm: the largest gradient norm of a stage; 0 does not clip.
        train_batch_norm: train BatchNormalization too; only for a network without pretraining.
    """

    name: str
    freeze_depth: int
    method: str = "gradient"
    epochs: int = 0
    optimizer: str = "adamw"
    learning_rate: float = 0.0
    backbone_rate: float = 1.0
    layer_decay: float = 1.0
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    clipnorm: float = 1.0
    train_batch_norm: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(self.name)):
            raise ArgumentError(
                "A phase's `name` must be made of letters, digits, '_' and '-'. "
                f"Received: name={self.name!r}"
            )
        check_choice("method", self.method, METHODS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_int("freeze_depth", self.freeze_depth, 0)
        check_int("epochs", self.epochs, 1 if self.method == "gradient" else 0)
        check_float("learning_rate", self.learning_rate, 0.0, exclusive=self.method == "gradient")
        check_float("backbone_rate", self.backbone_rate, 0.0, exclusive=True)
        check_float("layer_decay", self.layer_decay, 0.0, 1.0, exclusive=True)
        check_float("warmup", self.warmup, 0.0, 1.0)
        check_float("weight_decay", self.weight_decay, 0.0)
        check_float("clipnorm", self.clipnorm, 0.0)
        if not isinstance(self.train_batch_norm, bool):
            raise ArgumentError(
                "`train_batch_norm` must be true or false. Received: "
                f"train_batch_norm={self.train_batch_norm!r}"
            )
        if self.train_batch_norm and self.freeze_depth:
            raise ArgumentError(
                "`train_batch_norm` needs freeze_depth=0, because frozen layers run in "
                f"inference mode. Received: freeze_depth={self.freeze_depth}"
            )


@typed
@dataclass(frozen=True, repr=False)
class Recipe(Shown):
    """All settings of a run; change a field with `dataclasses.replace`.

    Args:
        name: the scenario or published recipe that it is based on.
        phases: the phases of training, in order.
        reason: the reason for this recipe, in one sentence.
        backbone: as for `build_transfer_model`, for example `"MobileNetV2(alpha=0.35)"`.
        weights: `"imagenet"`, `"embedded"`, `"random"` or a file.
        head: `"linear"`, `"stages"`, `"mlp"` or `"mlp:UNITS"`, as for `build_transfer_model`.
        cut: number of stages of the backbone to keep, with the head after the last of them; `None`
            for all.
        image_size: height and width of the network's input, or `None` for its native size.
        resize: how images get the shape of the input: `"squash"`, `"pad"` or `"crop"`, as for
            `load_data`; `None` for the value of the data.
        batch_size: images per step.
        accumulate: number of steps whose gradients are averaged before the weights change; 1 for
            none. The result is the same as with larger batches, but uses the memory of one batch.
        precision: Keras' policy of the network: `"float32"`, `"mixed_float16"` or
            `"mixed_bfloat16"`. Exports are always in float32.
        augmentation: `"none"`, `"flip"`, `"light"`, `"medium"` or `"strong"`
            (`kerastl.data.augment`).
        views: number of random views of each image that are stored with a frozen prefix, and used
            in turn; 0 draws new views in each epoch. Flips need only two.
        mixup_alpha: parameter of the beta distribution of mixup; 0 for no mixup.
        label_smoothing: fraction of the label that is spread over all classes, 0 to below 1.
        balance: weight of rare classes, from 0 (all images count the same) to 1 (all classes count
            the same).
        objective: the validation metric that selects the best epoch and decides whether a phase is
            kept: `"accuracy"`, `"balanced_accuracy"` (the mean recall of the classes) or
            `"macro_f1"`.
        patience: a phase stops after this many epochs without a better validation score.
        validation_fraction: fraction of the training images used for validation.
        seed: random seed of splits, order, augmentation and initial weights.
        task: `"classification"`, `"multi_label"`, `"regression"` or `"detection"`.
    """

    name: str
    phases: tuple[Phase, ...]
    reason: str = ""
    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    head: str = "linear"
    cut: int | None = None
    image_size: tuple[int, int] | None = None
    resize: str | None = None
    batch_size: int = 32
    accumulate: int = 1
    precision: str = "float32"
    augmentation: str = "flip"
    views: int = 0
    mixup_alpha: float = 0.0
    label_smoothing: float = 0.0
    balance: float = 0.0
    objective: str = "accuracy"
    patience: int = 10
    validation_fraction: float = 0.15
    seed: int = 0
    task: str = "classification"

    def __post_init__(self) -> None:
        if not self.phases:
            raise ArgumentError("`phases` must contain at least one `Phase`. Received: phases=()")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ArgumentError(f"Each phase needs a different name. Received: {names}")
        check_choice("augmentation", self.augmentation, AUGMENTATION_NAMES)
        check_head("head", self.head)
        check_int("batch_size", self.batch_size, 1)
        check_int("accumulate", self.accumulate, 1)
        check_choice("precision", self.precision, PRECISIONS)
        for side in self.image_size or ():
            check_int("image_size", side, 1)
        if self.resize is not None:
            check_choice("resize", self.resize, RESIZES)
        if self.cut is not None:
            check_int("cut", self.cut, 1)
        check_int("patience", self.patience, 1)
        check_int("views", self.views, 0)
        check_int("seed", self.seed, 0, 2**31 - 1)
        check_float("mixup_alpha", self.mixup_alpha, 0.0)
        check_float("label_smoothing", self.label_smoothing, 0.0, 0.999)
        check_float("balance", self.balance, 0.0, 1.0)
        check_choice("objective", self.objective, OBJECTIVES)
        check_float("validation_fraction", self.validation_fraction, 0.0, 0.9)
        check_task(self.task)
        task = find_task(self.task)
        for name, usual, is_possible, why in (
            ("mixup_alpha", 0.0, not task.has_boxes, "images cannot be mixed"),
            ("label_smoothing", 0.0, task.takes_label_smoothing, "there are no labels to smooth"),
            ("objective", OBJECTIVES[0], task.has_one_class, "there is only one objective"),
            ("balance", 0.0, task.has_one_class, "there are no classes to balance"),
        ):
            if getattr(self, name) != usual and not is_possible:
                raise ArgumentError(
                    f"With task={self.task!r} {why}. Received: {name}={getattr(self, name)!r}. "
                    f"Use {name}={usual!r}."
                )

    def _in_short(self) -> str:
        return f"{self.name!r}: {', '.join(phase.name for phase in self.phases)}; {self.backbone}"

    def __str__(self) -> str:
        return "\n".join(f"{name} = {value}" for name, value in vars(self).items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; `from_dict` reads them."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Return the recipe of `to_dict`; unknown or missing fields are errors."""
        return from_dict(cls, values)


def scenario_by_count(
    num_images: int, num_classes: int, task: str = DEFAULT_TASK
) -> tuple[str, str]:
    """Return a scenario and the reason for it, by size alone.

    Small is under 1,000 images or under 50 a class (CS231n's notes and common practice).
    Likeness to the pretraining data is not looked at, so "similar" is assumed, in which the
    backbone is changed least. Where images are of several labels, or have numbers, the images of
    all count together.
    """
    has_one_class = find_task(task).has_one_class
    per_class = num_images / num_classes if has_one_class else num_images
    small = num_images < SMALL_IMAGES or per_class < SMALL_IMAGES_PER_CLASS
    of_each = f" in {num_classes} classes ({per_class:.0f} per class)" if has_one_class else ""
    reason = (
        f"{num_images:,} training images{of_each} are {'few' if small else 'many'}; the "
        "similarity to the pretraining data was not measured."
    )
    return ("small_similar" if small else "large_similar"), reason


def fine_tune_epochs(num_images: int, batch_size: int, most: int = 12) -> int:
    """Return the epochs that make about 400 steps, from 3 (a budget of steps, as BiT's)."""
    steps = max(1, -(-num_images // batch_size))
    return min(most, max(3, round(FINE_TUNE_STEPS / steps)))


def make_recipe(
    name: str, *, num_stages: int, num_images: int, num_classes: int, **changes: Any
) -> Recipe:
    """Return the recipe of a scenario, or a published recipe, with all its numbers.

    Args:
        name: one of the four scenarios, or `"guide"`, `"fastai"`, `"bit"`, `"scratch"`.
        num_stages: stages of the backbone (`len(kerastl.stages(model))`).
        num_images: training images.
        num_classes: classes.
        **changes: other fields of `Recipe` (`backbone`, `seed`, ...). With `task="regression"` the
            default is `augmentation="none"`, because all others mirror images, and a mirror image
            may have a different target.

    Returns:
        A `Recipe`; the source of each number is in `kerastl.model.sources`.

    Raises:
        ArgumentError: the name is unknown, or a field is out of range.
    """
    check_choice("scenario", name, SCENARIOS + PUBLISHED)
    task = find_task(changes.get("task", DEFAULT_TASK))
    if task.batch_size is not None:
        changes = {"batch_size": task.batch_size, **changes}
    recipe = _MAKERS[name](num_stages, num_images, changes.get("batch_size", 32))
    if not recipe.reason and "reason" not in changes:
        of_what = task.count(num_classes)
        changes["reason"] = f"Chosen by name; {num_images:,} images, {of_what}."
    if task.augmentation is not None:
        changes = {"augmentation": task.augmentation, **changes}
    if name in SCENARIOS:
        phases = [
            dataclasses.replace(one, **task.fine_tune_phase) if one.method == "gradient" else one
            for one in recipe.phases
        ]
        recipe = dataclasses.replace(recipe, phases=tuple(phases))
    return with_head_that_trains(dataclasses.replace(recipe, **changes), num_images)


def with_head_that_trains(recipe: Recipe, num_images: int) -> Recipe:
    """Return a recipe in which gradients fit a head that no probe can, as one with hidden layers.

    At the rate of the head in the Keras guide, for about 400 steps: with few images in more epochs
    than of fine-tuning, since an epoch on stored embeddings costs little.
    """
    fields = find_task(recipe.task).head_phase(num_images, recipe.batch_size)
    if fields is None and not hidden_units(recipe.head):
        return recipe
    epochs = fine_tune_epochs(num_images, recipe.batch_size, most=40)
    fields = fields or {"epochs": epochs, "learning_rate": 1e-3}
    phases = [
        dataclasses.replace(phase, method="gradient", **fields)
        if phase.method == "probe"
        else phase
        for phase in recipe.phases
    ]
    return dataclasses.replace(recipe, phases=tuple(phases))


def _probe(num_stages: int) -> Phase:
    return Phase("head", freeze_depth=num_stages, method="probe")


def _small_similar(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    return Recipe("small_similar", (_probe(num_stages),))


def _lp_ft(num_stages: int, num_images: int, batch_size: int, depth: int, **rates: float) -> Any:
    fine_tune = Phase(
        "fine_tune",
        freeze_depth=min(depth, num_stages - 1),
        epochs=fine_tune_epochs(num_images, batch_size),
        **rates,  # type: ignore[arg-type]
    )
    return _probe(num_stages), fine_tune


def _large_similar(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    depth = max(1, num_stages // 3)
    rates = {"learning_rate": 1e-3, "backbone_rate": 0.1, "layer_decay": 0.5}
    return Recipe("large_similar", _lp_ft(num_stages, num_images, batch_size, depth, **rates))


def _small_different(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    depth = max(1, num_stages // 2)
    rates = {"learning_rate": 3e-4, "backbone_rate": 1.0, "layer_decay": 0.5}
    return Recipe("small_different", _lp_ft(num_stages, num_images, batch_size, depth, **rates))


def _large_different(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    phases = _lp_ft(num_stages, num_images, batch_size, 0, learning_rate=3e-4)
    mixup = 0.2 if num_images >= MIXUP_IMAGES else 0.0
    return Recipe("large_different", phases, mixup_alpha=mixup)


def _guide(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    common: dict[str, Any] = {
        "epochs": 10, "optimizer": "adam", "schedule": "constant", "warmup": 0.0, "clipnorm": 0.0,
    }  # fmt: skip
    head = Phase("head", freeze_depth=num_stages, learning_rate=1e-3, **common)
    fine_tune = Phase("fine_tune", freeze_depth=0, learning_rate=1e-5, **common)
    return Recipe("guide", (head, fine_tune), augmentation="light", patience=10)


def _fastai(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    head = Phase(
        "head", freeze_depth=num_stages, epochs=1, learning_rate=2e-3, schedule="one_cycle",
        warmup=0.99, weight_decay=0.01, clipnorm=0.0,
    )  # fmt: skip
    decay = (1 / 100) ** (1 / max(1, num_stages - 1))
    fine_tune = Phase(
        "fine_tune", freeze_depth=0, epochs=fine_tune_epochs(num_images, batch_size),
        learning_rate=1e-3, layer_decay=decay, schedule="one_cycle", warmup=0.3,
        weight_decay=0.01, clipnorm=0.0,
    )  # fmt: skip
    return Recipe("fastai", (head, fine_tune), augmentation="medium", patience=100)


def _bit(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    steps = 500 if num_images < 20_000 else 10_000 if num_images < 500_000 else 20_000
    fine_tune = Phase(
        "fine_tune", freeze_depth=0, epochs=max(1, -(-steps * batch_size // num_images)),
        optimizer="sgd", learning_rate=0.003 * batch_size / 512, schedule="step", warmup=0.1,
        clipnorm=0.0,
    )  # fmt: skip
    mixup = 0.1 if num_images >= MIXUP_IMAGES else 0.0
    return Recipe("bit", (fine_tune,), augmentation="light", mixup_alpha=mixup, patience=1000)


def _scratch(num_stages: int, num_images: int, batch_size: int) -> Recipe:
    train = Phase(
        "train", freeze_depth=0, epochs=fine_tune_epochs(num_images, batch_size),
        learning_rate=3e-3, train_batch_norm=True,
    )  # fmt: skip
    return Recipe("scratch", (train,))


_MAKERS: dict[str, Callable[[int, int, int], Recipe]] = {
    "small_similar": _small_similar,
    "large_similar": _large_similar,
    "small_different": _small_different,
    "large_different": _large_different,
    "guide": _guide,
    "fastai": _fastai,
    "bit": _bit,
    "scratch": _scratch,
}
