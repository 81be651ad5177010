"""Linear probes at the end of each stage of a backbone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kerastl._task import Task
from kerastl.advice.scores import one_standard_error_stage
from kerastl.advice.task_probe import probe_scores
from kerastl.backbones.stages import Stage
from kerastl.frozen.activations import Embeddings


@dataclass(frozen=True)
class StageProbe:
    """The score of a linear probe on the pooled output of a stage.

    Args:
        index: number of the stage, from 0 at the input.
        name: the layer that ends it.
        score: of the task, cross-validated: of classes the accuracy.
        standard_error: of the difference to the best stage, image by image.
        takes_head: whether one tensor alone leaves it, so that a head can sit there.
    """

    index: int
    name: str
    score: float
    standard_error: float
    takes_head: bool = True


class ProbeProfile(NamedTuple):
    """The probe at the end of each stage.

    Args:
        stages: input first.
        best_stage: number of the deepest stage within one standard error of the best.
        top: the score of each image at the end of the last stage, `(num_images,)`.
    """

    stages: tuple[StageProbe, ...]
    best_stage: int
    top: np.ndarray

    @property
    def earlier_lead(self) -> float:
        """Lead of the best stage over the last, in standard errors; negative without one."""
        best, last = max(self.stages, key=lambda stage: stage.score), self.stages[-1]
        lead = best.score - last.score
        return lead / last.standard_error if lead > 0 and last.standard_error else -1.0


def probe_stages(
    task: Task, chain: Sequence[Stage], ends: Sequence[Embeddings], seed: int
) -> ProbeProfile:
    """Fit a linear probe to the pooled output of each stage.

    Args:
        task: of the labels.
        chain: the stages.
        ends: of `extract_stage_embeddings`.
        seed: of the folds.
    """
    scores = np.stack([probe_scores(task, x, y, seed=seed) for x, y in ends])
    choice = one_standard_error_stage(scores)
    found = zip(chain, choice.scores, choice.standard_errors, strict=True)
    profile = tuple(
        StageProbe(
            stage.index,
            stage.name,
            float(score),
            float(error),
            takes_head=len(stage.output_shapes) == 1,
        )
        for stage, score, error in found
    )
    return ProbeProfile(profile, choice.stage, scores[-1])
