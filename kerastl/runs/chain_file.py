"""Reads the file that describes a chain."""

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from kerastl._checks import check_choice, check_int
from kerastl._reading import reading
from kerastl._records import from_dict
from kerastl._task import check_task
from kerastl.data.options import NO_OPTIONS, DataOptions
from kerastl.errors import ArgumentError
from kerastl.model.recipes import PUBLISHED, SCENARIOS, Recipe
from kerastl.results.run_files import Json
from kerastl.results.transfer import gradient_epochs

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class ChainStep:
    """One set of images in a chain; all but `name` as the options of `kerastl train`."""

    name: str  # letters, digits, `_` and `-`; a folder is called so
    data: str
    test: str | None = None
    scenario: str | None = None
    recipe: str | None = None  # a run directory or a recipe file
    epochs: int | None = None
    image_size: int | None = None  # None: as the step before
    task: str | None = None  # None: one class an image
    on_bad: str = "error"
    options: DataOptions = NO_OPTIONS  # how to read the data

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ArgumentError(
                "The `name` of a step must be made of letters, digits, '_' and '-'. Received: "
                f"name={self.name!r}"
            )
        if self.scenario is not None:
            check_choice("scenario", self.scenario, ("auto", *SCENARIOS, *PUBLISHED))
        if self.scenario is not None and self.recipe is not None:
            raise ArgumentError(
                f"Step {self.name!r} has a scenario and a recipe. Use only one of them."
            )
        if self.task is not None:
            check_task(self.task)
        check_choice("on_bad", self.on_bad, ("error", "skip"))
        for field in ("epochs", "image_size"):
            if getattr(self, field) is not None:
                check_int(field, getattr(self, field), 1)


@dataclass(frozen=True)
class Chain:
    """What a chain file says."""

    steps: tuple[ChainStep, ...]  # two or more; the last one's images are the goal
    backbone: str | None = None  # what the first step starts from
    weights: str | None = None  # of that
    seed: int = 0  # of all steps

    def __post_init__(self) -> None:
        if len(self.steps) < 2:
            raise ArgumentError(
                f"A chain needs two steps or more. Received: {len(self.steps)}. Write a "
                "table [[step]] with `name` and `data` for each; for one step, use `kerastl "
                "train`."
            )
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ArgumentError(f"Each step needs a different name. Received: {names}")
        check_int("seed", self.seed, 0, 2**31 - 1)

    def to_dict(self) -> Json:
        """Return plain values, two levels deep, as a resumed chain compares them."""
        kept = {name: getattr(self, name) for name in ("backbone", "weights", "seed")}
        return {**kept, "steps": {step.name: dataclasses.asdict(step) for step in self.steps}}


def read_chain(path: str | Path) -> Chain:
    """Read a chain file: TOML with `backbone`, `weights`, `seed`, and a table `[[step]]` a step.

    Paths in it are those of the commands: relative to where `kerastl` is run.

    Raises:
        DataError: there is no such file, or it is not TOML.
        ArgumentError: a name is unknown, or a value cannot be meant.

    Example:
        ```toml
        backbone = "MobileNetV2(alpha=0.35)"

        [[step]]
        name = "objects"
        data = "cifar10/"
        scenario = "large_different"
        options = { resize = "pad" }

        [[step]]
        name = "insects"
        data = "hymenoptera/"
        ```
    """
    with reading(f"the chain {path}", "Pass a TOML file."):
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    steps = values.pop("step", [])
    if not isinstance(steps, list):
        raise ArgumentError(
            "The steps of a chain must be tables [[step]]. Received a table [step]."
        )
    read = [from_dict(ChainStep, step, "A step") for step in steps]
    return from_dict(Chain, {**values, "steps": read}, "A chain")


def images_trained_on(recipe: Recipe, num_images: int) -> int:
    """Return how many images a recipe trains on by gradients, each counted in each epoch."""
    return num_images * gradient_epochs(recipe)


def with_budget(recipe: Recipe, factor: float) -> Recipe:
    """Return a recipe whose phases that train by gradients are longer by a factor, rounded."""
    phases = [
        dataclasses.replace(phase, epochs=max(1, round(factor * phase.epochs)))
        if phase.method == "gradient"
        else phase
        for phase in recipe.phases
    ]
    return dataclasses.replace(recipe, phases=tuple(phases))
