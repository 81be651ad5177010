"""Computes the scenario and the expected gain of opening stages from measurements.

Plain arithmetic. Its numbers were fitted to `benchmarks/advice.py`, and lie with their provenance
in `coefficients.json`.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from scipy.stats import binom

from kerastl.advice.scores import LearningCurve
from kerastl.model.head_names import STAGES

# Of the errors of a softmax on the pooled top, what a head of all stages mends: on five sets 15 %
# with up to 1,020 images, 21 % with 10 a class (MobileNetV2 0.35, 224 pixels).
MENDED_BY_ALL_STAGES = 0.15

FEW_IMAGES, FEW_PER_CLASS = 1000, 50  # CS231n's notes and common practice
MANY_IMAGES = 20_000  # BiT's line (https://arxiv.org/abs/1912.11370)
UNSURE = (0.3, 0.7)  # a probability between these is called in between
OPENINGS = ("head", "last_stage", "half", "all")
NUM_FEATURES = 4


@dataclass(frozen=True)
class Evidence:
    """The measurements behind a decision, as plain numbers.

    Args:
        num_images: Training images.
        num_classes: Classes, or other outputs.
        probe_error: Error of a linear probe on the embeddings, cross-validated, 0 to 1: 1 minus
            the score of the task.
        shift: BatchNormalization shift above its noise, or None when the network has none.
        native_share: Side of the network's input, in sides of the one that it was pretrained at.
        source_share: Share of the label entropy that the ImageNet head explains, or None.
        earlier_lead: By how many of its standard errors the best earlier stage end beats the last
            one, below 0 when none does.
    """

    num_images: int
    num_classes: int
    probe_error: float
    shift: float | None = None
    native_share: float = 1.0
    source_share: float | None = None
    earlier_lead: float = 0.0


def probability_large(num_images: int, num_classes: int, curve: LearningCurve | None) -> float:
    """Return the probability that there are many images for this task.

    Under 1,000 images, or 50 a class, they are few; from 20,000 on, many. Between, they are many
    by the share of the expected error that more images would not take away: a / (a + b n^(-1/2)).
    """
    fullness = min(num_images / FEW_IMAGES, num_images / num_classes / FEW_PER_CLASS)
    share = 0.5
    if curve is not None:
        learnable = curve.b / math.sqrt(num_images)
        share = curve.a / (curve.a + learnable) if curve.a + learnable > 0 else 0.5
    if fullness < 1:
        return min(0.45, 0.45 * fullness * (0.5 + share))
    if num_images >= MANY_IMAGES:
        return max(0.9, share)
    return share


def usual_shift(native_share: float, numbers: dict[str, float] | None = None) -> float:
    """Return the shift that separates similar from different images.

    Photographs of any kind shift the more the smaller the network's input is, from 96 to 224 pixels
    about as the inverse of the root of its side.
    """
    middle = (numbers or coefficients()["different"])["shift"]
    return middle / math.sqrt(min(native_share, 1.0))


def probability_different(evidence: Evidence, numbers: dict[str, float] | None = None) -> float:
    """Return the probability that the images differ from the pretraining data.

    A logistic function of the logarithm of the shift over the usual one; where the ImageNet head is
    at hand, of the share of the label entropy that it explains too. An earlier stage end that beats
    the last one by two standard errors speaks for different. With no evidence it is 0.5.

    Args:
        evidence: What was measured.
        numbers: The logistic function's. Default: those of `coefficients.json`.
    """
    numbers = numbers or coefficients()["different"]
    logit = 0.0
    if evidence.shift is not None:
        ratio = max(evidence.shift, 1e-3) / usual_shift(evidence.native_share, numbers)
        logit += numbers["per_log_shift"] * max(-2.0, min(2.0, math.log(ratio)))
    if evidence.source_share is not None:
        logit += numbers["per_source_share"] * (numbers["source_share"] - evidence.source_share)
    if evidence.earlier_lead > 2:
        logit += numbers["earlier_lead"]
    return 1 / (1 + math.exp(-logit))


def scenario_of(large: float, different: float) -> tuple[str, float]:
    """Return the most probable of the four scenarios and its probability."""
    size, size_sure = ("large", large) if large > 0.5 else ("small", 1 - large)
    kind, kind_sure = ("different", different) if different > 0.5 else ("similar", 1 - different)
    return f"{size}_{kind}", size_sure * kind_sure


def beats_chance(num_right: int, num_images: int, counts: Sequence[int]) -> bool:
    """Return whether the accuracy is better than chance (99.9 %).

    Args:
        num_right: Images that were classified correctly.
        num_images: number of images.
        counts: Images of each class, the commonest of which is guessed.
    """
    return bool(binom.sf(num_right - 1, num_images, max(counts) / sum(counts)) < 1e-3)


def features(num_images: int, different: float) -> list[float]:
    """Return the inputs of the linear model of the gain: 1, dissimilarity, images, and product.

    Unlikeness runs from -1 to 1; images count by their logarithm, 0 at 200 and 1 at 2,000, held
    between -1 and 1, since no more was measured.
    """
    unlike = 2 * different - 1
    many = max(-1.0, min(1.0, math.log10(num_images / 200)))
    return [1.0, unlike, many, unlike * many]


def expected_gain(
    opening: str,
    evidence: Evidence,
    different: float,
    weights: dict[str, list[float]] | None = None,
    *,
    head: str = "linear",
) -> float:
    """Return the accuracy that opening is expected to gain over the head alone, -1 to 1.

    What can be gained is a part of the probe's error. The coefficients are of a softmax on the
    pooled top. What a head of all stages mends by itself is no gain, where images are similar; of
    different images open stages still mended 6 to 22 % beyond it, as of three of the five sets.

    Args:
        opening: One of `OPENINGS`.
        evidence: What was measured.
        different: Probability of "different".
        weights: `(4,)` an opening. Default: those of `coefficients.json`.
        head: the kind of head, `"linear"` or `"stages"`.
    """
    if opening == "head":
        return 0.0
    chosen = (weights or coefficients()["gains"])[opening]
    terms = features(evidence.num_images, different)
    mended = MENDED_BY_ALL_STAGES * (1 - different) if head == STAGES else 0.0
    return evidence.probe_error * (sum(w * f for w, f in zip(chosen, terms, strict=True)) - mended)


def best_opening(
    evidence: Evidence,
    different: float,
    numbers: dict[str, Any] | None = None,
    *,
    head: str = "linear",
) -> str:
    """Return the opening of the largest expected gain; the head unless another gains `least_gain`.

    Args:
        evidence: What was measured.
        different: Probability of "different".
        numbers: `gains` and `least_gain`. Default: those of `coefficients.json`.
        head: as `expected_gain` takes it.
    """
    numbers = numbers or coefficients()
    gains = {
        opening: expected_gain(opening, evidence, different, numbers["gains"], head=head)
        for opening in OPENINGS
    }
    best = max(OPENINGS, key=gains.__getitem__)
    return best if gains[best] >= numbers["least_gain"] else "head"


def opening_depth(opening: str, num_stages: int) -> int:
    """Return the freeze depth of an opening."""
    return {"head": num_stages, "last_stage": num_stages - 1, "half": num_stages // 2, "all": 0}[
        opening
    ]


@functools.cache
def coefficients() -> dict[str, Any]:
    """Return the numbers of `coefficients.json`."""
    file = resources.files("kerastl.advice") / "coefficients.json"
    numbers: dict[str, Any] = json.loads(file.read_text())
    return numbers
