"""Where in the depth of a backbone the classes become separable, by linear probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kerastl.advice.probe import LinearProbe
from kerastl.advice.scores import one_standard_error_stage
from kerastl.backbones.stages import Stage
from kerastl.frozen.activations import Embeddings


@dataclass(frozen=True)
class StageProbe:
    """How well a linear probe does on the pooled end of a stage.

    Args:
        index: number of the stage, from 0 at the input.
        name: the layer that ends it.
        accuracy: cross-validated.
        standard_error: of the difference to the best stage, image by image.
        takes_head: whether one tensor alone leaves it, so that a head can sit there.
    """

    index: int
    name: str
    accuracy: float
    standard_error: float
    takes_head: bool = True


class ProbeProfile(NamedTuple):
    """The probe at the end of each stage.

    Args:
        stages: input first.
        best_stage: number of the deepest stage within one standard error of the best.
        top: the probe on the embeddings, the end of the last stage.
    """

    stages: tuple[StageProbe, ...]
    best_stage: int
    top: LinearProbe

    @property
    def earlier_lead(self) -> float:
        """By how many standard errors the best stage end beats the last; below 0 when it is it."""
        best, last = max(self.stages, key=lambda stage: stage.accuracy), self.stages[-1]
        lead = best.accuracy - last.accuracy
        return lead / last.standard_error if lead > 0 and last.standard_error else -1.0


def probe_stages(chain: Sequence[Stage], ends: Sequence[Embeddings], seed: int) -> ProbeProfile:
    """Fit a linear probe to the pooled end of each stage.

    Args:
        chain: the stages.
        ends: of `extract_stage_embeddings`.
        seed: of the folds.
    """
    probes = [LinearProbe(seed=seed).fit(x, y) for x, y in ends]
    choice = one_standard_error_stage(np.stack([probe.is_right_ for probe in probes]))
    found = zip(chain, choice.accuracies, choice.standard_errors, strict=True)
    profile = tuple(
        StageProbe(
            stage.index,
            stage.name,
            float(accuracy),
            float(error),
            takes_head=len(stage.output_shapes) == 1,
        )
        for stage, accuracy, error in found
    )
    return ProbeProfile(profile, choice.stage, probes[-1])
