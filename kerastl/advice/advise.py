"""Turns a diagnosis into a recipe, with a reason for each number."""

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

from kerastl._shown import Shown
from kerastl._task import find_task
from kerastl._typed import typed
from kerastl.advice.diagnosis import Diagnosis
from kerastl.advice.evidence import (
    OPENINGS,
    best_opening,
    coefficients,
    expected_gain,
    opening_depth,
)
from kerastl.advice.sizes import size_text, why_chosen
from kerastl.model.head_names import STAGES, hidden_units
from kerastl.model.recipes import (
    Phase,
    Recipe,
    fine_tune_epochs,
    make_recipe,
    with_head_that_trains,
)
from kerastl.model.sources import SOURCES

BATCH_SIZE = 32
_ASKED = "as requested"
_OF_PHASES = ("freeze_depth", "epochs", "learning_rate", "backbone_rate", "layer_decay")
LEARNING_RATE = 3e-4  # that of the grid to which the expected gains were fitted
_NAMES = {
    "head": "training the head alone",
    "last_stage": "training the last stage",
    "half": "training the upper half",
    "all": "training everything",
}


_TRAINED = {
    "head": "only the head is trained",
    "last_stage": "the head and the last stage are trained",
    "half": "the head and the upper half of the network are trained",
    "all": "everything is trained",
}


@dataclass(frozen=True)
class Reason:
    """Why one number of a recipe is what it is.

    Args:
        name: The field of the `Recipe` or of its last `Phase`.
        value: As text.
        why: The evidence, or the source of a default.
        otherwise: What would have to be measured for another value; empty where nothing would.
    """

    name: str
    value: str
    why: str
    otherwise: str = ""

    def __str__(self) -> str:
        return f"{self.name} = {self.value}: {self.why}{self.otherwise and '; ' + self.otherwise}."


@typed
@dataclass(frozen=True, repr=False)
class Advice(Shown):
    """A recipe, with the reason for each number.

    Args:
        recipe: the recipe for `fine_tune`; its `name` is the scenario.
        reasons: one reason for each chosen number.
        alternatives: the other choices of open stages, with their expected gain over the head
            alone, best first. The gain is in accuracy, in mean average precision for several
            labels, in R² for regression.
        summary: the result and the choice in one or two sentences.
    """

    recipe: Recipe
    reasons: tuple[Reason, ...]
    alternatives: tuple[tuple[str, float], ...]
    summary: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "recipe": self.recipe.to_dict(),
            "summary": self.summary,
            "reasons": [asdict(reason) for reason in self.reasons],
            "alternatives": [
                {"open": name, "expected_gain": gain} for name, gain in self.alternatives
            ],
        }

    def __str__(self) -> str:
        return "\n".join(str(reason) for reason in self.reasons)

    def _in_short(self) -> str:
        return f"{self.recipe!r}, {len(self.reasons)} reasons"


def advise(diagnosis: Diagnosis, **changes: Any) -> Advice:
    """Return what to train, at which rates and for how long, with the reason for each number.

    The advice opens the stages with the largest expected gain over the head alone. The expected
    gain is a linear function of the dissimilarity and the number of the images, times the error of
    the probe; its coefficients were fitted to trainings on five real data sets (see
    `coefficients.json`). These data sets have one class per image; for several labels and
    regression, the same relative reduction of the error is expected. If the head alone is best, but
    a probe is better at the end of an earlier stage (as in CS231n's notes for few, different
    images), the later stages are removed, unless the head reads all stages. The same happens if the
    earlier stage is better by more than the expected gain of opening stages.

    Args:
        diagnosis: the result of `diagnose`.
        **changes: fields of `Recipe` with fixed values, such as `seed` or `backbone`.

    Returns:
        An `Advice`.

    Example:
        >>> advice = kerastl.advise(kerastl.diagnose(model, data))
        >>> history = kerastl.fine_tune(model, data, recipe=advice.recipe)
    """
    numbers, different = diagnosis.evidence, diagnosis.different
    head = changes.get("head", diagnosis.head)
    gains = {one: expected_gain(one, numbers, different, head=head) for one in OPENINGS}
    opening = best_opening(numbers, different, head=head)
    better = diagnosis.profile[diagnosis.best_stage].score - diagnosis.profile[-1].score
    if head != STAGES and _can_move_head(diagnosis) and better > gains[opening]:
        opening = "head"
    phases, cut = _phases(diagnosis, opening, changes.get("batch_size", BATCH_SIZE))
    if head == STAGES and cut:  # it reads the earlier ends too
        phases, cut = (dataclasses.replace(phases[0], freeze_depth=diagnosis.num_stages),), None
    recipe = make_recipe(
        diagnosis.scenario,
        num_stages=diagnosis.num_stages,
        num_images=numbers.num_images,
        num_classes=numbers.num_classes,
        task=diagnosis.task,
        reason=f"Measured: {diagnosis.scenario}, {diagnosis.probability:.0%} sure.",
    )
    found = {
        "phases": phases,
        "cut": cut or diagnosis.cut,
        "image_size": diagnosis.image_size,
        **{name: getattr(diagnosis, name) for name in ("backbone", "weights", "head")},
    }
    recipe = dataclasses.replace(recipe, **{**found, **changes})
    recipe = with_head_that_trains(recipe, numbers.num_images)
    ranked = sorted(((_NAMES[o], gain) for o, gain in gains.items()), key=lambda pair: -pair[1])
    asked = {name for name, value in changes.items() if value is not None}
    asked |= set(_OF_PHASES) if "phases" in changes else set()
    reasons = [
        dataclasses.replace(reason, why=_ASKED, otherwise="") if reason.name in asked else reason
        for reason in _reasons(diagnosis, opening, recipe)
    ]
    return Advice(recipe, tuple(reasons), tuple(ranked), _summary(diagnosis, opening, gains))


def _summary(diagnosis: Diagnosis, opening: str, gains: dict[str, float]) -> str:
    size, likeness = diagnosis.scenario.split("_")
    score = find_task(diagnosis.task).score.title
    text = (
        f"{'Few' if size == 'small' else 'Many'} images, {likeness} "
        f"{'to' if likeness == 'similar' else 'from'} the pretraining data "
        f"({diagnosis.probability:.0%} sure): {_TRAINED[opening]}.\n"
        f"A linear probe on the frozen network has {score} {diagnosis.profile[-1].score:.3f} "
        "(cross-validated)"
    )
    if opening != "head":
        text += f"; training more is expected to add {100 * gains[opening]:.1f} points"
    if diagnosis.sizes:
        text += f".\nImage size {size_text(diagnosis.image_size)}: {why_chosen(diagnosis.sizes)}"
    return f"{text}."


def _phases(
    diagnosis: Diagnosis, opening: str, batch_size: int
) -> tuple[tuple[Phase, ...], int | None]:
    """Return the phases, and the number of stages to keep where the head moves down."""
    num_stages, num_images = diagnosis.num_stages, diagnosis.evidence.num_images
    if opening == "head":
        cut = diagnosis.best_stage + 1 if _can_move_head(diagnosis) else None
        return (Phase("head", cut or num_stages, "probe"),), cut
    fine_tune = Phase(
        "fine_tune",
        opening_depth(opening, num_stages),
        epochs=fine_tune_epochs(num_images, batch_size),
        learning_rate=LEARNING_RATE,
    )
    return (Phase("head", num_stages, "probe"), fine_tune), None


def _can_move_head(diagnosis: Diagnosis) -> bool:
    """Return whether an earlier stage end is clearly better for a probe, and takes a head."""
    is_clear = diagnosis.evidence.earlier_lead > coefficients()["least_lead"]
    is_earlier = diagnosis.best_stage + 1 < diagnosis.num_stages
    return is_clear and is_earlier and diagnosis.profile[diagnosis.best_stage].takes_head


def _reasons(diagnosis: Diagnosis, opening: str, recipe: Recipe) -> list[Reason]:
    last = recipe.phases[-1]
    general = SOURCES["all"]
    reasons = [
        Reason(
            "name", recipe.name, f"{diagnosis.probability:.0%} sure", _other_scenario(diagnosis)
        ),
        Reason(
            "head",
            recipe.head,
            "gradients fit it, as no probe can"
            if hidden_units(recipe.head)
            else f"it starts from {find_task(diagnosis.task).head_start}",
        ),
        _where(diagnosis, recipe),
        Reason(
            "freeze_depth",
            f"{last.freeze_depth} of {diagnosis.num_stages}",
            _why(diagnosis, opening, recipe.head),
            _other(diagnosis, opening, recipe.head),
        ),
        Reason(
            "image_size",
            str(list(recipe.image_size or diagnosis.image_size)),
            why_chosen(diagnosis.sizes) if diagnosis.sizes else "the size used in the diagnosis",
        ),
        Reason("augmentation", recipe.augmentation, general["augmentation"]),
    ]
    if last.method == "gradient":
        own = SOURCES["large_different"]
        reasons += [
            Reason("epochs", str(last.epochs), own["epochs"], "more images get fewer epochs"),
            Reason("learning_rate", f"{last.learning_rate:g}", own["learning_rate"]),
            Reason("backbone_rate", f"{last.backbone_rate:g}", own["backbone_rate"]),
            Reason("layer_decay", f"{last.layer_decay:g}", own["layer_decay"]),
        ]
        if recipe.mixup_alpha:
            reasons.append(Reason("mixup_alpha", f"{recipe.mixup_alpha:g}", general["mixup_alpha"]))
    if not diagnosis.trustworthy:
        reasons.append(Reason("trust", "none", "the probe is no better than chance"))
    return reasons


def _why(diagnosis: Diagnosis, opening: str, head: str) -> str:
    gains = {
        one: expected_gain(one, diagnosis.evidence, diagnosis.different, head=head)
        for one in OPENINGS
    }
    if opening == "head":
        best = max(OPENINGS[1:], key=gains.__getitem__)
        return f"{_NAMES[best]}, the best alternative, is expected to give {_points(gains[best])}"
    why = f"{_NAMES[opening]} is expected to gain {_points(gains[opening])} over the head alone"
    if find_task(diagnosis.task).has_one_class:
        return why
    return f"{why}, if it reduces the error by the same fraction as for classes"


def _other(diagnosis: Diagnosis, opening: str, head: str) -> str:
    """Say with how many more images something else would be advised."""
    numbers = diagnosis.evidence
    for factor in (2, 4, 10):
        error = numbers.probe_error
        if diagnosis.curve is not None:
            error = diagnosis.curve.error(factor * numbers.num_images)
        more = dataclasses.replace(
            numbers, num_images=factor * numbers.num_images, probe_error=error
        )
        other = best_opening(more, diagnosis.different, head=head)
        if other != opening:
            return f"with {factor} times as many images: {_NAMES[other]}"
    return "ten times as many images would not change it"


def _other_scenario(diagnosis: Diagnosis) -> str:
    if diagnosis.in_between:
        return (
            "it is not clear whether the images are similar or different "
            f"({diagnosis.different:.0%} different); the choice is good for both cases"
        )
    return ""


def _where(diagnosis: Diagnosis, recipe: Recipe) -> Reason:
    if recipe.cut is None:
        why = "no earlier stage end is clearly better for a linear probe"
        if diagnosis.evidence.earlier_lead > coefficients()["least_lead"]:
            better = diagnosis.profile[diagnosis.best_stage].name
            why = f"{better!r} is better for a linear probe, but the stages above it are trained"
            if recipe.phases[-1].method != "gradient":
                why = f"{better!r} is better for a linear probe, but it cannot have a head"
        return Reason("cut", "none", why)
    best = diagnosis.profile[recipe.cut - 1]
    gain = best.score - diagnosis.profile[-1].score
    return Reason(
        "cut",
        f"{recipe.cut} of {diagnosis.num_stages} stages",
        f"a linear probe on {best.name!r} beats the last stage by {_points(gain)}; the stages "
        "above it are removed",
    )


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points"
