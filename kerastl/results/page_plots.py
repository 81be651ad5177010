"""The plots of a run's page, as SVG with the colours and fonts of the page."""

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kerastl._figures import NotebookFigure
from kerastl._task import DEFAULT_TASK, find_task
from kerastl.advice.plot import draw_curve, draw_profile, draw_shift
from kerastl.results.run_files import Json
from kerastl.results.run_shapes import ConfidenceBin, StageMovement
from kerastl.training.search_plot import plot_search

# What is drawn in these becomes a variable of the page's style sheet, which knows light and dark.
_INK, _MUTED, _LINE = "#101112", "#505152", "#c0c1c2"
_FIRST, _SECOND, _THIRD = "#1f5f8c", "#b4572e", "#5e7f3a"
_VARIABLES = {
    _INK: "ink",
    _MUTED: "muted",
    "#808080": "muted",  # matplotlib's grey
    _LINE: "line",
    _FIRST: "first",
    _SECOND: "second",
    _THIRD: "third",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kerastl",  # one run, one page
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "text.color": _INK,
    "axes.titlecolor": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=[_FIRST, _SECOND, _THIRD]),
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_SIZE = (4.9, 3.1)
_SMALL = (3.5, 2.7)  # three side by side
_SQUARE = (6.4, 6.0)
MOST_NAMED = 20  # classes whose names fit beside a matrix
_IDENTIFIERS = re.compile(r'(\bid="|url\(#|href="#)')
_EPOCHS_WITH_DOTS = 40


def to_svg(figure: Figure, name: str, text: str) -> Markup:
    """Return a figure, drawn in the style of the page, as an `<svg>` element for it.

    Its identifiers start with the name of the plot, so that those of two plots differ. The text is
    what the plot shows, for who cannot see it.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.S
    )
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = _IDENTIFIERS.sub(rf"\g<1>{name}-", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    opening = svg[: svg.index(">") + 1]
    box = re.search(r'viewBox="[^"]*"', opening)
    start = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box[0] if box else ""} role="img" '
        f'aria-label="{escape(text)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(start + svg[len(opening) :])  # noqa: S704  matplotlib escapes what it writes


def _drawn(
    name: str, text: str, draw: Callable[[Axes], object], size: tuple[float, float] = _SIZE
) -> Markup:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        return to_svg(figure, name, text)


def diagnosis_plots(diagnosis: Json) -> list[Markup]:
    """Return the probe profile, the shift and the learning curve of `diagnosis.json`."""
    layers = diagnosis["similarity"].get("layers")
    found: Any = _namespace(
        {
            "task": diagnosis.get("task", DEFAULT_TASK),
            "profile": diagnosis["profile"],
            "best_stage": diagnosis["best_stage"],
            "shift": {"layers": layers} if layers else None,
            "curve": diagnosis["size"].get("learning_curve"),
        }
    )
    best = max(stage["score"] for stage in diagnosis["profile"])
    last = diagnosis["profile"][-1]["score"]
    title = find_task(found.task).score.title
    drawn = (
        ("profile", draw_profile, f"Linear probe at the end of each stage ({title}): "
         f"{best:.3f} at the best stage, {last:.3f} at the last."),
        ("shift", draw_shift, "Shift of the BatchNormalization statistics by layer, with noise."),
        ("curve", draw_curve, "Expected error of the probe against the number of training images."),
    )  # fmt: skip
    return [
        _drawn(f"diagnosis-{name}", text, partial(draw, diagnosis=found), _SMALL)
        for name, draw, text in drawn
    ]


def history_plots(rows: Sequence[Json], watched: str, title: str) -> list[Markup]:
    """Return the watched measure, by its title, and the loss over the epochs of all phases.

    One row of `history.csv` is no course: of it there is no plot.
    """
    if len(rows) < 2:
        return []
    plots = []
    for key, label in ((watched, title), ("loss", "Loss")):
        values = [row[key] for row in rows if row.get(key) is not None]
        if values:
            end = f"{values[-1]:.3f} on training images at the end"
            draw = partial(_history, rows=rows, key=key, label=label)
            plots.append(_drawn(f"history-{key}", f"{label} over {len(rows)} epochs; {end}.", draw))
    return plots


def _history(axes: Axes, rows: Sequence[Json], key: str, label: str) -> None:
    marker = "o" if len(rows) <= _EPOCHS_WITH_DOTS else None
    numbers = np.arange(1, len(rows) + 1)
    for name, shown in ((key, "training"), (f"val_{key}", "validation")):
        values = [np.nan if row.get(name) is None else float(row[name]) for row in rows]
        if not np.isnan(values).all():
            axes.plot(numbers, values, marker=marker, label=shown)
    phases = [row.get("phase", "") for row in rows]
    for place in range(1, len(rows)):
        if phases[place] != phases[place - 1]:
            axes.axvline(place + 0.5, linestyle=":", color="grey")
    axes.set(title=label, xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def values_plot(place: int, name: str, answers: dict[str, Sequence[float]]) -> Markup:
    """Return the numbers that were answered against the true ones, of the target at a place.

    The answers hold `truth` and `values`, a number a test image each.
    """
    truth, values = np.asarray(answers["truth"]), np.asarray(answers["values"])
    ends = [min(truth.min(), values.min()), max(truth.max(), values.max())]

    def draw(axes: Axes) -> None:
        axes.plot(ends, ends, linestyle="--", color="grey")
        axes.scatter(truth, values, s=14, c=_FIRST, alpha=0.6, linewidths=0)
        # Names come from the user's table, and a dollar sign would begin a formula.
        axes.set(title=name.replace("$", r"\$"), xlabel="true", ylabel="predicted")

    text = (
        f"{name}: predictions against true values of {len(truth)} test images. The true "
        f"values go from {truth.min():.4g} to {truth.max():.4g}, the predictions from "
        f"{values.min():.4g} to {values.max():.4g}."
    )
    return _drawn(f"values-{place}", text, draw)


def reliability_plot(rows: Sequence[ConfidenceBin]) -> Markup:
    """Return how often answers of like confidence were right, of `reliability()`."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], linestyle="--", color="grey")
        accuracy = np.array([row["accuracy"] for row in rows])
        low, high = np.array([row["interval"] for row in rows]).T
        gaps = np.maximum([accuracy - low, high - accuracy], 0)
        axes.errorbar(
            [row["confidence"] for row in rows], accuracy, gaps, fmt="o", capsize=2, elinewidth=1
        )
        axes.set(title="Calibration", xlabel="predicted probability", ylabel="accuracy")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))

    worst = max(rows, key=lambda row: abs(row["confidence"] - row["accuracy"]) * row["num_images"])
    text = (
        f"Accuracy of the predictions against their probability. Where {worst['num_images']} "
        f"answers were {worst['confidence']:.0%} sure, {worst['accuracy']:.0%} were correct."
    )
    return _drawn("reliability", text, draw)


def plot_confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Return the confusion matrix as a figure, with names and counts where there is room."""
    figure = NotebookFigure(_SQUARE, layout="constrained")
    axes = figure.subplots()
    _confusion(axes, np.asarray(matrix))
    if len(class_names) <= MOST_NAMED:
        names = [name.replace("$", r"\$") for name in class_names]
        axes.set(xlabel="answer", xticks=range(len(names)), yticks=range(len(names)))
        axes.set_xticklabels(names, rotation=90)
        axes.set_yticklabels(names)
        for place, count in np.ndenumerate(matrix):
            axes.text(place[1], place[0], str(count), ha="center", va="center")
    return figure


def _confusion(axes: Axes, counts: np.ndarray) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # From nothing to the colour of the page, so that it fits light and dark.
    colors = LinearSegmentedColormap.from_list("page", [(0.2, 0.5, 0.75, 0), (0.2, 0.5, 0.75, 1)])
    axes.imshow(shares, cmap=colors, vmin=0, vmax=1, interpolation="nearest")
    axes.grid(False)
    axes.set(xlabel="answer, by the number of the class", ylabel="class")


def confusion_plot(matrix: Sequence[Sequence[int]]) -> Markup:
    """Return the confusion matrix of many classes as a picture, each row of sum 1."""
    counts = np.asarray(matrix)
    right = f"{np.trace(counts):.0f} of {counts.sum():.0f} correct"
    text = f"Confusion matrix of {len(counts)} classes; {right}."
    return _drawn("confusion", text, partial(_confusion, counts=counts), _SQUARE)


def movement_plot(moved: Sequence[StageMovement]) -> Markup:
    """Return how far the weights of each stage moved, of `how_far_moved`."""

    def draw(axes: Axes) -> None:
        places = np.arange(1, len(moved) + 1)
        axes.bar(places, [100 * stage["moved"] for stage in moved], width=0.6)
        axes.grid(False, axis="x")
        axes.set(title="Distance moved", xlabel="stage, from the input", xticks=places)
        axes.set_ylabel("% of the norm of the weights")

    most = max(moved, key=lambda stage: stage["moved"])
    text = (
        f"Change of each stage; the largest change is in {most['name']}, {most['moved']:.2%} "
        "of its length."
    )
    return _drawn("moved", text, draw)


def search_plot(trials: Json) -> Markup:
    """Return score against freeze depth of the trials of `trials.json`."""
    found: Any = _namespace({name: trials[name] for name in ("trials", "best")})
    found.task = trials.get("task", DEFAULT_TASK)
    for trial in found.trials:
        trial.is_completed = trial.status == "completed"
    found.diagnosis = {"profile": trials["profile"]}
    found.summary = str
    with mpl.rc_context(_STYLE):
        figure = plot_search(found)
        figure.suptitle("")
        figure.axes[1].remove()  # the page has the profile already
        figure.set_size_inches(7.0, 3.4)
        best = trials["best"]
        text = (
            f"Validation {find_task(found.task).score.title} of {len(trials['trials'])} trials "
            f"against freeze depth; the best has depth {best['freeze_depth']} and "
            f"{best['score']:.3f}."
        )
        return to_svg(figure, "search", text)


# Ten hues of middle lightness, each with a contrast of 3 or more to the light and the dark page.
_HUES = (
    "#2f7fb8", "#c0602f", "#5f8a3c", "#8a63b5", "#b04a6f",
    "#1f8c84", "#9a7a1f", "#6f7785", "#c2479b", "#4a6ee0",
)  # fmt: skip
_MARKERS = {"o": "●", "^": "▲", "s": "■", "D": "◆", "v": "▼"}  # and what shows them in the key


def map_key(label: int) -> tuple[str, str]:
    """Return the colour and the sign of a class on the map; every 50 classes they come again."""
    signs = list(_MARKERS.values())
    return _HUES[label % len(_HUES)], signs[label // len(_HUES) % len(signs)]


def map_plot(points: np.ndarray, labels: np.ndarray) -> Markup:
    """Return a map of images `(num_images, 2)`, a colour and a shape a class.

    Those of unknown class, whose label is -1, are grey.
    """
    markers = list(_MARKERS)
    size = 26 if len(points) <= 500 else 12

    def draw(axes: Axes) -> None:
        for label in np.unique(labels).tolist():
            color = map_key(label)[0] if label >= 0 else _MUTED
            marker = markers[label // len(_HUES) % len(markers)] if label >= 0 else "o"
            x, y = points[labels == label].T
            axes.scatter(x, y, s=size, c=color, marker=marker, alpha=0.8, linewidths=0)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal", "datalim")

    text = f"Map of {len(points)} images; images with similar embeddings are close together."
    return _drawn("map", text, draw, (7.0, 5.2))


def _namespace(value: Any) -> Any:
    """Return JSON's objects as objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _namespace(inner) for name, inner in value.items()})
    return [_namespace(inner) for inner in value] if isinstance(value, list) else value
