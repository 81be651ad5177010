"""Plots a `SearchResult`, or any object with its fields."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kerastl._figures import NotebookFigure
from kerastl._task import find_task


def plot_search(result: Any) -> Figure:
    """Return a figure of score against freeze depth, and of the probe profile.

    Args:
        result: Of `search`.

    Returns:
        A figure of its own, of no window; `figure.savefig("search.png")` writes it.
    """
    figure = NotebookFigure(figsize=(9, 3.6), layout="constrained")
    trials, profile = figure.subplots(1, 2)
    _trials(trials, result)
    _profile(profile, result)
    figure.suptitle(result.summary(), fontsize="small", wrap=True)
    return figure


def _trials(axes: Axes, result: Any) -> None:
    completed = [trial for trial in result.trials if trial.is_completed]
    kinds = sorted({(trial.learning_rate or 0.0, trial.epochs) for trial in completed})
    for place, (rate, epochs) in enumerate(kinds):
        mine = [t for t in completed if (t.learning_rate or 0.0, t.epochs) == (rate, epochs)]
        shift = 0.3 * (place / max(1, len(kinds) - 1) - 0.5)  # equal depths side by side
        axes.errorbar(
            [trial.freeze_depth + shift for trial in mine],
            [trial.score or 0.0 for trial in mine],
            [trial.standard_error or 0.0 for trial in mine],
            fmt="o",
            capsize=3,
            label=f"rate {rate:.2g}, epochs {epochs}" if rate else "head alone",
        )
    axes.axvline(result.best.freeze_depth, linestyle=":", color="grey")
    axes.set(
        title="Trials",
        xlabel="freeze depth",
        ylabel=f"validation {find_task(result.task).score.title}",
        xticks=list(range(len(result.diagnosis["profile"]) + 1)),
    )
    if len(kinds) <= 12:
        axes.legend(fontsize="x-small")


def _profile(axes: Axes, result: Any) -> None:
    profile = result.diagnosis["profile"]
    axes.errorbar(
        [stage["index"] + 1 for stage in profile],
        [stage["score"] for stage in profile],
        [stage["standard_error"] for stage in profile],
        marker="o",
        capsize=3,
    )
    axes.set(
        title="Linear probe by stage",
        xlabel="stage",
        ylabel=f"cross-validated {find_task(result.task).score.title}",
        xticks=[stage["index"] + 1 for stage in profile],
    )
