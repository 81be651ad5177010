"""Plots a `Diagnosis`, or any object with its fields."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerastl._figures import NotebookFigure
from kerastl._task import find_task


def plot_diagnosis(diagnosis: Any) -> Figure:
    """Return a figure of the probe profile, the shift over depth and the learning curve.

    Args:
        diagnosis: Of `diagnose`.

    Returns:
        A figure of its own, of no window; `figure.savefig("diagnosis.png")` writes it.
    """
    figure = NotebookFigure(figsize=(11, 3.4), layout="constrained")
    profile, shift, curve = figure.subplots(1, 3)
    draw_profile(profile, diagnosis)
    draw_shift(shift, diagnosis)
    draw_curve(curve, diagnosis)
    sure = f"{diagnosis.probability:.0%} sure"
    figure.suptitle(f"{diagnosis.scenario.replace('_', ', ')} ({sure})")
    return figure


def draw_profile(axes: Axes, diagnosis: Any) -> None:
    """Draw the score of the linear probe at the end of each stage."""
    depth = [stage.index + 1 for stage in diagnosis.profile]
    axes.errorbar(
        depth,
        [stage.score for stage in diagnosis.profile],
        [stage.standard_error for stage in diagnosis.profile],
        marker="o",
        capsize=3,
    )
    axes.axvline(diagnosis.best_stage + 1, linestyle=":", color="grey")
    axes.set(
        title="Linear probe by stage",
        xlabel="stage",
        ylabel=f"cross-validated {find_task(diagnosis.task).score.title}",
        xticks=depth,
    )


def draw_shift(axes: Axes, diagnosis: Any) -> None:
    """Draw the shift of the BatchNormalization statistics over depth."""
    axes.set(title="BatchNormalization shift", xlabel="layer, from the input")
    if diagnosis.shift is None:
        axes.text(0.5, 0.5, "not available", ha="center", transform=axes.transAxes)
        return
    layers = diagnosis.shift.layers
    axes.plot([layer.shift for layer in layers], marker="o", label="these images")
    axes.plot([layer.floor for layer in layers], linestyle="--", label="noise")
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_curve(axes: Axes, diagnosis: Any) -> None:
    """Draw the error of the probe against the number of training images."""
    axes.set(title="Learning curve of the probe", xlabel="training images", ylabel="error")
    curve = diagnosis.curve
    if curve is None:
        axes.text(0.5, 0.5, "too few images", ha="center", transform=axes.transAxes)
        return
    sizes = np.geomspace(curve.num_images / 8, 4 * curve.num_images, 40)
    axes.plot(sizes, [curve.a + curve.b / np.sqrt(size) for size in sizes])
    for prediction in (curve.doubled, curve.quadrupled):
        low, high = prediction.error - prediction.low, prediction.high - prediction.error
        axes.errorbar(
            prediction.num_images,
            prediction.error,
            [[low], [high]],
            marker="o",
            color="C1",
            capsize=3,
        )
    axes.axvline(curve.num_images, linestyle=":", color="grey")
    axes.set(xscale="log")
    marks = [curve.num_images, curve.doubled.num_images, curve.quadrupled.num_images]
    axes.set_xticks(marks, [f"{mark:,}" for mark in marks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
