"""Writes the page of a run: one file without external files."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kerastl._measure import headlines
from kerastl._task import DEFAULT_TASK, find_task
from kerastl.results import page_plots
from kerastl.results.run_files import Json, RunFiles, in_words, recipe_file

TEMPLATE = "report.html.j2"
MOST_CELLS = 16  # classes whose confusions are a table; those of more are a picture
MOST_ROWS = 40  # classes whose rows stand open
MOST_TARGETS = 6  # whose answers are drawn


def write_report(run: str | Path) -> Path:
    """Write `report.html` from the files of a run, and return its path.

    The page is one HTML file without scripts and external files. It works offline, has a light and
    a dark theme, and can be printed. Empty sections are left out.

    Args:
        run: a directory of `kerastl train` or `kerastl search`.

    Raises:
        DataError: `run` is not a run, or a file is damaged.
        ExportError: the page cannot be written.

    Example:
        >>> kerastl.write_report("runs/1")
        PosixPath('runs/1/report.html')
    """
    facts = RunFiles(run)
    return facts.write(facts.REPORT, render(facts))


def render(facts: RunFiles) -> str:
    """Return the page about a run as HTML."""
    page = environment().get_template(TEMPLATE)
    with in_words(facts.directory):
        _check_counts(facts)
        return page.render(
            task=find_task(facts.task),
            headlines=headlines,
            facts=facts,
            test=(facts.metrics or {}).get("test"),
            validation=(facts.metrics or {}).get("validation"),
            plots=_plots(facts),
            picture=facts.picture,
            command=rerun_command(facts),
            most_cells=MOST_CELLS,
            most_rows=MOST_ROWS,
            settings=_settings(facts.recipe),
            absent=_absent(facts),
        )


def _check_counts(facts: RunFiles) -> None:
    """Raise a `ValueError` unless all that has a place for each class has as many as there are."""
    found, count = facts.evaluation or {}, len(facts.class_names)
    matrix = found.get("confusion", [])
    parts = found["data"]["counts"] if found else {}
    rows = {"confusion": matrix, **{f"confusion[{n}]": row for n, row in enumerate(matrix)}}
    rows |= {f"data.counts.{part}": counts for part, counts in parts.items()}
    rows["class_names"] = found.get("class_names", [])
    for name, row in rows.items():
        if row and len(row) != count:
            raise ValueError(f"evaluation.{name} has {len(row)} places in a run of {count}")


def environment() -> Environment:
    """Return Jinja2 over these templates and the tasks'; it escapes all that is filled in."""
    here = Path(__file__).parent
    found = Environment(
        loader=FileSystemLoader([here, here.parent / "tasks"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "percent": percent,
        "number": number,
        "span": format_interval,
        "words": humanise,
        "link": _link,
    }
    return found


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as text; an en dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text; an en dash for None."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def format_interval(interval: Sequence[float] | None, kind: str = "percent") -> str:
    """Return an interval as text: of shares in per cent, or of numbers."""
    if interval is None:
        return ""
    low, high = interval
    if kind == "percent":
        return f"{100 * low:.1f} to {100 * high:.1f}\N{NO-BREAK SPACE}%"
    return f"{low:.3f} to {high:.3f}"


def humanise(name: str) -> str:
    """Return the name of a scenario or a field as words."""
    return name.replace("_", " ")


def rerun_command(facts: RunFiles) -> str:
    """Return the command that runs a recipe again on the data it came from."""
    source = facts.source
    parts = ["kerastl", "train", str(source.get("data", "DATA"))]
    if source.get("test"):
        parts += ["--test", str(source["test"])]
    parts += ["--recipe", str(recipe_file(facts.directory))]
    if facts.task != DEFAULT_TASK:
        parts += ["--task", facts.task]
    if source.get("on_bad", "error") != "error":
        parts += ["--on-bad", str(source["on_bad"])]
    return shlex.join(parts)


def _settings(recipe: Json) -> list[tuple[str, str]]:
    """Return the fields of a recipe that are no phase and no sentence, as text."""
    kept = {name: value for name, value in recipe.items() if name not in ("phases", "reason")}
    return [
        (humanise(name), " × ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in kept.items()
        if value is not None
    ]


def _absent(facts: RunFiles) -> set[str]:
    """Return the sections that there is nothing for."""
    findings = facts.evaluation or {}
    content = {
        "diagnosis": facts.diagnosis,
        "training": facts.history or facts.metrics,
        "confusion": findings,
        "worst": findings.get("worst"),
        "looks": findings.get("surest"),
        "transfer": facts.transfer,
    }
    return {name for name, held in content.items() if not held}


def _link(path: str) -> Markup:
    """Return the path of an image as a link to its file, or as text where there is none."""
    text = Markup('<span class="path">{}</span>').format(path)
    if not Path(path).is_file():
        return text
    return Markup('<a href="{}">{}</a>').format(Path(path).absolute().as_uri(), text)


def _plots(facts: RunFiles) -> Json:
    task, findings = find_task(facts.task), facts.evaluation or {}
    matrix, moved = findings.get("confusion", []), findings.get("moved", [])
    bins, trials = findings.get("reliability"), facts.trials
    return {
        "diagnosis": page_plots.diagnosis_plots(facts.diagnosis) if facts.diagnosis else [],
        "history": page_plots.history_plots(facts.history, task.watched, task.watched_title),
        "reliability": page_plots.reliability_plot(bins) if bins else None,
        "confusion": page_plots.confusion_plot(matrix) if len(matrix) > MOST_CELLS else None,
        "moved": page_plots.movement_plot(moved) if any(s["moved"] for s in moved) else None,
        "values": [
            page_plots.values_plot(place, facts.class_names[place], answers)
            for place, answers in enumerate(findings.get("answers", [])[:MOST_TARGETS])
        ],
        "search": page_plots.search_plot(trials) if trials else None,
    }
