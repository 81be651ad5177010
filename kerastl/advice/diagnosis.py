"""Measures the transfer-learning scenario."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerastl._checks import check_int, check_tensorflow
from kerastl._shown import Shown
from kerastl._task import DEFAULT_TASK, Task, check_supports, find_task
from kerastl._typed import typed
from kerastl.advice.doubts import (
    blurred_images,
    labels_no_better_than_chance,
    small_classes,
)
from kerastl.advice.evidence import (
    UNSURE,
    Evidence,
    probability_different,
    probability_large,
    scenario_of,
    usual_shift,
)
from kerastl.advice.profile import StageProbe, probe_stages
from kerastl.advice.sample import sample_of
from kerastl.advice.scores import LearningCurve, log_evidence, shrinkage_h_score
from kerastl.advice.shift import LayerShift, Shift, measure_shift, preprocessing_lint
from kerastl.advice.sizes import (
    SizeProbe,
    check_mutually_exclusive,
    chosen_size,
    probe_sizes,
    size_text,
    why_chosen,
)
from kerastl.advice.source_head import source_head
from kerastl.advice.task_probe import ProbeLabels, probe_curve
from kerastl.backbones.given_models import OWN_WEIGHTS
from kerastl.backbones.table import is_hub, parse_backbone
from kerastl.data.load import ImageData
from kerastl.frozen.activations import Embeddings, extract_stage_embeddings
from kerastl.frozen.prefixes import image_size_of
from kerastl.frozen.runtime import StoreChoice, open_runtime
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import stages
from kerastl.model.heads import head_of
from kerastl.model.kept_words import Origin, origin_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_DIAGNOSED = 4000
_SCORED_IMAGES = 1000  # H-score and LogME take an eigendecomposition


@typed
@dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """Size of the data, similarity to the pretraining data, and the scenario.

    Args:
        scenario: the most probable of the four scenarios.
        probability: probability of this scenario.
        large: probability that there are many images for this task.
        different: probability that the images differ from the pretraining data.
        evidence: the measurements behind the decision.
        images_per_class: number of training images per class or label, by name.
        num_sampled: number of training images that were measured.
        profile: the probe at the end of each stage, input first.
        best_stage: index of the deepest stage within one standard error of the best.
        shift: BatchNormalization shift by depth; None without BatchNormalization.
        curve: error of the probe against the number of images; None with too few images.
        h_score: shrinkage H-score of the embeddings; None unless each image has one class.
        log_evidence: corrected LogME of the embeddings; None in the same cases.
        image_size: height and width of the input.
        median_side: median of the shorter sides of the images, in pixels.
        warnings: problems and doubts, one sentence each.
        sizes: the probe at each image size, smallest first; empty with only one size.
        backbone: the `backbone` of `build_transfer_model`, or the name of the model.
        weights: the `weights` of `build_transfer_model`; `"model"` for other models and for paths.
        cut: the `cut` of `build_transfer_model`.
        head: the `head` of `build_transfer_model`.
        task: the task.
        trustworthy: whether the probe is better than chance (99.9 %).
    """

    scenario: str
    probability: float
    large: float
    different: float
    evidence: Evidence
    images_per_class: dict[str, int]
    num_sampled: int
    profile: tuple[StageProbe, ...]
    best_stage: int
    shift: Shift | None
    curve: LearningCurve | None
    h_score: float | None
    log_evidence: float
    image_size: tuple[int, int]
    median_side: int
    warnings: tuple[str, ...]
    sizes: tuple[SizeProbe, ...] = ()
    backbone: str = "MobileNetV2"
    weights: str = "imagenet"
    cut: int | None = None
    head: str = "linear"
    task: str = DEFAULT_TASK
    trustworthy: bool = True

    @property
    def num_stages(self) -> int:
        """Number of stages of the backbone."""
        return len(self.profile)

    @property
    def in_between(self) -> bool:
        """Whether it is unclear if the images are similar to the pretraining data."""
        low, high = UNSURE
        return low < self.different < high

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        numbers, shift, curve = self.evidence, self.shift, self.curve
        return {
            "task": self.task,
            "scenario": self.scenario,
            "probability": self.probability,
            "size": {
                "large": self.large,
                "num_images": numbers.num_images,
                "num_classes": numbers.num_classes,
                "num_sampled": self.num_sampled,
                "images_per_class": self.images_per_class,
                "learning_curve": None if curve is None else asdict(curve),
            },
            "similarity": {
                "different": self.different,
                "in_between": self.in_between,
                "batch_norm_shift": numbers.shift,
                "layers": [] if shift is None else [_plain(layer) for layer in shift.layers],
                "source_share": numbers.source_share,
                "image_size": list(self.image_size),
                "median_side": self.median_side,
            },
            "probe": {
                find_task(self.task).score.key: self.profile[-1].score,
                "above_chance": self.trustworthy,
                "h_score": self.h_score,
                "log_evidence": self.log_evidence,
            },
            "profile": [asdict(stage) for stage in self.profile],
            "best_stage": self.best_stage,
            "sizes": [asdict(probe) for probe in self.sizes],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _in_short(self) -> str:
        return f"{self.scenario}, {self.probability:.0%} sure"

    def plot(self) -> "Figure":
        """Return a figure: probe profile, BatchNormalization shift, learning curve."""
        from kerastl.advice.plot import plot_diagnosis  # matplotlib takes half a second

        return plot_diagnosis(self)


def diagnose(
    model_or_backbone: keras.Model | str | os.PathLike[str],
    data: ImageData,
    *,
    weights: str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    image_sizes: Sequence[int | tuple[int, int]] | None = None,
    max_images: int = MAX_DIAGNOSED,
    batch_size: int = 32,
    seed: int = 0,
    store: StoreChoice = "default",
    engine: str = "auto",
) -> Diagnosis:
    """Measure the transfer-learning scenario (https://cs231n.github.io/transfer-learning/).

    One pass over the training images computes the pooled output of every stage. Linear probes on
    these outputs show at which depth the labels can be predicted, and how the error falls with the
    number of images. A second pass over 128 images measures the shift of the BatchNormalization
    statistics. The score of a probe is the accuracy for classes, the mean average precision for
    several labels, and R² for regression; its error is 1 minus the score. The function trains
    nothing and does not use the test images.

    Args:
        model_or_backbone: a model of `build_transfer_model`, or the name of a backbone.
        data: the result of `load_data`.
        weights: for a name: `"imagenet"`, `"embedded"`, `"random"` or a file.
        image_size: for a name: height and width. Default: the native size of the backbone.
        image_sizes: for a name: several sizes instead of one, which costs one pass over the images
            per size. The smallest size whose linear probe is within one standard error of the best
            is used.
        max_images: size of the stratified sample of training images, and the maximum number of
            validation images.
        batch_size: images per step.
        seed: random seed of samples and folds.
        store: as in `extract_embeddings`.
        engine: as in `extract_embeddings`.

    Returns:
        A `Diagnosis`; print it, or pass it to `advise`.

    Raises:
        ArgumentError: an argument is invalid, or a class is missing.

    Example:
        >>> print(kerastl.diagnose("MobileNetV2", data))
    """
    check_tensorflow("`diagnose`")
    task = check_supports(data.task, "probe")
    check_int("max_images", max_images, 2)
    runtime = open_runtime(store, engine, batch_size)
    sample = sample_of(task, data.train, max_images, seed)
    sizes: tuple[SizeProbe, ...] = ()
    if image_sizes is not None:
        check_mutually_exclusive(image_size, image_sizes)
        sizes = probe_sizes(
            model_or_backbone, data.num_classes, sample, image_sizes,
            task=task.name, weights=weights, seed=seed, runtime=runtime,
        )  # fmt: skip
        image_size = chosen_size(sizes).image_size
    model = model_or_backbone
    if isinstance(model, (str, os.PathLike)):
        model = build_transfer_model(
            model,
            data.num_classes,
            weights=str(weights),
            image_size=image_size,
            channels=data.train.channels,
            task=task.name,
        )
    ends = extract_stage_embeddings(model, sample, runtime=runtime)
    profile, top = probe_stages(task, stages(model), ends, seed), ends[-1]
    shift = measure_shift(model, data.train, batch_size=batch_size, seed=seed)
    curve = probe_curve(task, *top, seed=seed)
    evidence = Evidence(
        num_images=len(data.train),
        num_classes=data.num_classes,
        probe_error=min(1.0, 1 - profile.stages[-1].score),
        shift=None if shift is None else shift.overall,
        native_share=_native_share(model),
        source_share=_source_share(task, model, top),
        earlier_lead=profile.earlier_lead,
    )
    num_classes = data.num_classes if task.has_one_class else 1  # images teach all labels at once
    large = probability_large(evidence.num_images, num_classes, curve)
    different = probability_different(evidence)
    scenario, probability = scenario_of(large, different)
    few = slice(None, None, max(1, len(top.y) // _SCORED_IMAGES))
    counts = np.array(task.count_images(data.train.labels, data.num_classes))
    size, median_side = image_size_of(model), int(np.median(sample.source.sizes().min(1)))
    warnings = [
        *data.warnings,
        "" if shift is None else preprocessing_lint(shift),
        blurred_images(median_side, min(size)),
        small_classes(task, data.class_names, counts),
        labels_no_better_than_chance(task, profile.top, data.train.labels),
    ]
    return Diagnosis(
        scenario=scenario,
        probability=probability,
        large=large,
        different=different,
        evidence=evidence,
        images_per_class=dict(zip(data.class_names, counts.tolist(), strict=True)),
        num_sampled=len(sample),
        profile=profile.stages,
        best_stage=profile.best_stage,
        shift=shift,
        curve=curve,
        h_score=shrinkage_h_score(top.x[few], top.y[few]) if task.has_one_class else None,
        log_evidence=log_evidence(top.x[few], ProbeLabels(task, top.y[few]).targets),
        image_size=size,
        median_side=median_side,
        warnings=tuple(text for text in warnings if text),
        sizes=sizes,
        **origin_of(model)._asdict(),
        head=head_of(model),
        task=task.name,
        trustworthy=task.beats_guess(profile.top, data.train.labels),
    )


def _plain(layer: LayerShift) -> dict[str, Any]:
    """Return plain values; JSON has no nan."""
    contrast = layer.contrast if math.isfinite(layer.contrast) else None
    return {**asdict(layer), "contrast": contrast}


def _is_published(origin: Origin) -> bool:
    return origin.weights != OWN_WEIGHTS and not is_hub(origin.backbone)


def _native_share(model: keras.Model) -> float:
    origin = origin_of(model)
    if not _is_published(origin):
        return 1.0
    return min(image_size_of(model)) / parse_backbone(origin.backbone).record.image_size


def _source_share(task: Task, model: keras.Model, top: Embeddings) -> float | None:
    origin = origin_of(model)
    if not _is_published(origin) or origin.cut is not None:
        return None
    head = source_head(origin.backbone, origin.weights, image_size=image_size_of(model))
    return None if head is None else task.source_share(head(top.x), top.y)


def _lines(found: Diagnosis) -> list[str]:
    numbers, task = found.evidence, find_task(found.task)
    of_each = f", {numbers.num_images / numbers.num_classes:.0f} per class"
    lines = [
        f"Scenario: {found.scenario.replace('_', ', ')} ({found.probability:.0%} sure"
        + (", between similar and different)." if found.in_between else ")."),
        f"Size: {numbers.num_images:,} training images, {task.count(numbers.num_classes)}"
        f"{of_each if task.has_one_class else ''}.",
    ]
    if found.curve is not None:
        curve = found.curve
        lines.append(
            f"Error of a linear probe (1 - {task.score.title}): {numbers.probe_error:.1%}; "
            f"expected with {2 * curve.num_images:,} images {curve.doubled.error:.1%}, "
            f"with {4 * curve.num_images:,} images {curve.quadrupled.error:.1%}."
        )
    if numbers.shift is not None:
        usual = usual_shift(numbers.native_share)
        lines.append(
            f"Similarity: BatchNormalization shift {numbers.shift:.3f} "
            f"(everyday photographs: below {usual:.2f} at this size)."
        )
    else:
        lines.append("Similarity: the network has no BatchNormalization statistics to compare.")
    if numbers.source_share is not None and math.isfinite(numbers.source_share):
        lines.append(f"The ImageNet classifier explains {numbers.source_share:.0%} of the labels.")
    best = found.profile[found.best_stage]
    lines.append(
        f"Linear probe by stage ({task.score.title}): "
        f"{', '.join(f'{stage.score:.3f}' for stage in found.profile)} "
        f"(deepest within one standard error of the best: {best.name})."
    )
    if found.sizes:
        lines.append(f"Image size {size_text(found.image_size)}: {why_chosen(found.sizes)}.")
    return lines + [f"Warning: {text}" for text in found.warnings]
