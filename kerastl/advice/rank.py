"""Compares backbones with a probe on the data, and ImageNet accuracy as prior."""

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kerastl._checks import check_int
from kerastl._task import check_supports
from kerastl.advice.diagnosis import MAX_DIAGNOSED
from kerastl.advice.sample import sample_of
from kerastl.advice.task_probe import probe_scores
from kerastl.backbones.weights import resolve_name
from kerastl.data.load import ImageData
from kerastl.errors import ArgumentError
from kerastl.frozen.activations import extract_embeddings
from kerastl.frozen.prefixes import image_size_of
from kerastl.frozen.runtime import StoreChoice, open_runtime
from kerastl.model.build import build_transfer_model


@dataclass(frozen=True)
class RankedBackbone:
    """What is known of a backbone for this data.

    Args:
        name: As `build_transfer_model` takes it.
        probe_score: Of a linear probe on its embeddings, cross-validated: the accuracy of classes,
            the mean average precision of labels, the R² of numbers.
        standard_error: Of the difference to the best probe, image by image.
        imagenet_top1: Published accuracy of the default architecture; None where there is none.
        num_parameters: Of the backbone.
        seconds_per_image: Of one forward pass here, reading and decoding included; of the run that
            filled the store where it was found there.
        image_size: Height and width it sees.
    """

    name: str
    probe_score: float
    standard_error: float
    imagenet_top1: float | None
    num_parameters: int
    seconds_per_image: float
    image_size: tuple[int, int]


def rank_backbones(
    data: ImageData,
    names: Sequence[str],
    *,
    weights: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = "imagenet",
    image_size: int | tuple[int, int] | None = None,
    max_images: int = MAX_DIAGNOSED,
    seed: int = 0,
    store: StoreChoice = "default",
    engine: str = "auto",
) -> list[RankedBackbone]:
    """Compare backbones on your data, with one forward pass each; the best comes first.

    Backbones are ordered by a linear probe on this data. Backbones within one standard error of the
    best are ordered by their published ImageNet accuracy, if all have one, because it predicts
    transfer better than any published score of features (weighted tau 0.65 over 11 data sets).

    Args:
        data: the result of `load_data`.
        names: backbones, as for `build_transfer_model`.
        weights: one value for all backbones, or one per backbone.
        image_size: one size for all. Default: the native size of each backbone.
        max_images: size of the stratified sample of training images that is measured.
        seed: random seed of the sample and the folds.
        store: as in `extract_embeddings`.
        engine: as in `extract_embeddings`.

    Returns:
        A list of `RankedBackbone`, best first.

    Example:
        >>> kerastl.rank_backbones(data, ["MobileNetV2", "EfficientNetV2B0", "ResNet50"])[0].name
        'EfficientNetV2B0'
    """
    task = check_supports(data.task, "probe")
    if isinstance(names, str):
        raise ArgumentError(
            f"`names` must be a list of backbones. Received: {names!r}. Write [{names!r}]."
        )
    if not names:
        raise ArgumentError("`names` must contain at least one backbone. Received: names=[]")
    files = [weights] * len(names) if isinstance(weights, (str, os.PathLike)) else list(weights)
    if len(files) != len(names):
        raise ArgumentError(
            "`weights` must be one value for all backbones, or one value per backbone. "
            f"Received: {len(files)} for {len(names)} backbones."
        )
    for name in names:
        resolve_name(name)  # a misspelt name is told before the first pass
    sample = sample_of(task, data.train, check_int("max_images", max_images, 2), seed)
    found, scores = [], []
    for name, file in zip(names, files, strict=True):
        model = build_transfer_model(
            name,
            data.num_classes,
            weights=str(file),
            image_size=image_size,
            channels=data.train.channels,
            task=task.name,
        )
        runtime, started = open_runtime(store, engine), time.perf_counter()
        embeddings = extract_embeddings(model, sample, runtime=runtime)
        seconds = runtime.usage.seconds_saved or time.perf_counter() - started
        scores.append(probe_scores(task, *embeddings, seed=seed))
        found.append(
            RankedBackbone(
                name=name,
                probe_score=0.0,  # `order_backbones` fills both in
                standard_error=0.0,
                imagenet_top1=published_top1(name),
                num_parameters=model.get_layer("backbone").count_params(),
                seconds_per_image=seconds / len(sample),
                image_size=image_size_of(model),
            )
        )
    return order_backbones(found, scores)


def published_top1(name: str) -> float | None:
    """Return the ImageNet accuracy that Keras publishes, of default architectures alone."""
    spec = resolve_name(name)
    return None if spec is None or spec.arguments else spec.record.imagenet_top1


def order_backbones(
    found: Sequence[RankedBackbone], scores: Sequence[np.ndarray]
) -> list[RankedBackbone]:
    """Return backbones best first, with scores, and errors of the differences to the best.

    `scores` has a number an image for each backbone: of classes whether its probe was right.
    """
    best = max(scores, key=lambda each: each.mean())
    ranked = []
    for backbone, each in zip(found, scores, strict=True):
        error = float((best.astype(float) - each).std() / max(len(each) - 1, 1) ** 0.5)
        ranked.append(
            dataclasses.replace(backbone, probe_score=float(each.mean()), standard_error=error)
        )

    def is_tied(backbone: RankedBackbone) -> bool:
        return best.mean() - backbone.probe_score <= backbone.standard_error

    ranked.sort(key=lambda backbone: -backbone.probe_score)
    tied = [backbone for backbone in ranked if is_tied(backbone)]
    if all(backbone.imagenet_top1 is not None for backbone in tied):
        tied.sort(key=lambda backbone: -(backbone.imagenet_top1 or 0.0))
    return tied + [backbone for backbone in ranked if not is_tied(backbone)]
