"""Decides what a run trains, from settings and measurements, and builds the model."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from kerastl._records import from_dict
from kerastl._steps import step
from kerastl._task import find_task
from kerastl.advice.advise import Advice, advise
from kerastl.advice.diagnosis import Diagnosis, diagnose
from kerastl.data.classes import UNEVEN
from kerastl.data.load import ImageData
from kerastl.model.build import build_transfer_model
from kerastl.model.kept_rules import remember_rules
from kerastl.model.precision import building_in
from kerastl.model.recipe_changes import with_epochs, with_fine_tuning
from kerastl.model.recipes import Recipe
from kerastl.results.run_files import Json
from kerastl.runs.settings import AUTO, RunSettings
from kerastl.runs.telling import Tell, silent
from kerastl.training.fine_tune import resolve_recipe

UNMEASURED = "large_similar"  # the scenario of a task whose images cannot be measured


@dataclass(frozen=True)
class RunPlan:
    """What is going to be trained."""

    recipe: Recipe | None = None  # complete; None where `scenario` becomes one on the model
    scenario: str = ""
    reason: str | None = None  # why that one, if there is more to say than that it was asked for
    diagnosis: Json | None = None  # what `diagnosis.json` holds, if anything was measured

    def to_dict(self) -> Json:
        """Return plain values that JSON can hold."""
        return {**vars(self), "recipe": self.recipe and self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunPlan":
        """Return the plan that `to_dict` wrote."""
        return from_dict(cls, dict(values))


def decide_plan(settings: RunSettings, images: ImageData, tell: Tell) -> RunPlan:
    """Return what to train, measured where the scenario is `"auto"`."""
    fields = settings.recipe_fields(len(images.train))
    if settings.recipe is not None:
        return RunPlan(recipe=dataclasses.replace(settings.recipe, **fields))
    if settings.scenario != AUTO:
        return RunPlan(scenario=settings.scenario)
    if settings.weights == "random":
        return RunPlan(scenario="scratch", reason="There are no pretrained weights to keep.")
    if "probe" not in find_task(settings.task).supports:
        return RunPlan(scenario=UNMEASURED, reason="Nothing was measured: there is no probe.")
    with step("Comparing the images with the pretraining data", shown=tell is not silent):
        found = diagnose(
            settings.backbone,
            images,
            weights=settings.weights,
            image_size=settings.image_size,
            image_sizes=settings.image_sizes,
            seed=settings.seed,
        )
    if not settings.head:  # nobody asked for it
        found = dataclasses.replace(found, head=fields.pop("head"))
    advice = advise(found, **fields)
    tell(advice.summary)
    for warning in found.warnings:
        if warning not in images.warnings:  # which were told when they were read
            tell(f"Warning: {warning}")
    return RunPlan(recipe=advice.recipe, diagnosis=diagnosis_to_dict(found, advice))


def diagnosis_to_dict(found: Diagnosis, advice: Advice) -> Json:
    """Return the content of `diagnosis.json`."""
    return {**found.to_dict(), "advice": advice.to_dict()}


def build_model(
    images: ImageData, plan: RunPlan, settings: RunSettings, strategy: Any = None
) -> tuple[keras.Model, Recipe]:
    """Return an untrained model and the complete recipe for it."""
    wanted = settings if plan.recipe is None else plan.recipe
    fields = settings.recipe_fields(len(images.train))
    keras.utils.set_random_seed(wanted.seed)
    with building_in(wanted.precision or None):
        model = build_transfer_model(
            wanted.backbone,
            images.num_classes,
            weights=wanted.weights,
            image_size=wanted.image_size,
            channels=images.train.channels,
            cut=None if plan.recipe is None else plan.recipe.cut,
            head=fields["head"] if plan.recipe is None else plan.recipe.head,
            class_names=images.class_names,
            strategy=strategy,
            task=images.task,
        )
    remember_rules(model, images.train.source.rules)
    if plan.recipe is not None:
        return model, plan.recipe
    if plan.reason is not None:
        fields["reason"] = plan.reason
    return model, resolve_recipe(plan.scenario, model, images, **fields)


def as_asked(recipe: Recipe, asked: RunSettings, images: ImageData, tell: Tell) -> Recipe:
    """Return a recipe with the requested numbers of its phases and the requested balance."""
    names = ("epochs", "learning_rate", "freeze_depth")
    idle = [name for name in names if getattr(asked, name) is not None]
    if idle and all(phase.method == "probe" for phase in recipe.phases):
        tell(
            f"Warning: recipe {recipe.name} fits the head in closed form, so "
            f"{', '.join(f'`{name}`' for name in idle)} had no effect. Pass "
            "scenario='large_similar' to fine-tune."
        )
    if asked.epochs is not None:
        recipe = with_epochs(recipe, asked.epochs)
    recipe = with_fine_tuning(
        recipe, learning_rate=asked.learning_rate, freeze_depth=asked.freeze_depth
    )
    balance = asked.balance
    if balance is None:
        return recipe
    if balance == "auto":
        counts = images.train.class_counts()
        balance = float(max(counts) >= UNEVEN * max(1, min(counts)))
        tell(f"Balance {balance:g}: {min(counts):,} to {max(counts):,} images per class.")
    return dataclasses.replace(recipe, balance=float(balance))
