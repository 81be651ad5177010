"""Adds the pages of the site that are made: tutorials, commands, results of benchmarks.

`KERASTL_DOCS_RUN=all` (or names: `tour,flowers`) runs tutorials for their output and figures.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TUTORIALS = [  # of `examples/`, in jupytext's percent format
    "tour",
    "flowers",
    "xrays",
    "several_labels",
    "detection",
    "larger_images",
    "own_backbone",
    "from_the_keras_guide",
    "from_fastai",
]
SCRIPTS = "https://github.com/kerastl/kerastl/blob/main/examples"
TIMEOUT = 900  # seconds that a cell may take
NOISE = re.compile(
    r"WARNING: All log messages before absl|[IWE]\d{4} \d\d:|To enable the following"
)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages; MkDocs calls this once a build."""
    from mkdocs.structure.files import File

    asked = os.environ.get("KERASTL_DOCS_RUN", "").split(",")
    pages: dict[str, str | bytes] = {"commands.md": commands(), "measured.md": measured()}
    for name in TUTORIALS:
        pages |= tutorial(name, run=name in asked or asked == ["all"])
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def tutorial(name: str, *, run: bool) -> dict[str, str | bytes]:
    """Return a script as a page, as a notebook, and its figures, by their paths in the site."""
    import jupytext
    from nbconvert import MarkdownExporter
    from nbconvert.preprocessors import ExecutePreprocessor

    notebook = jupytext.read(ROOT / "examples" / f"{name}.py")
    if run:
        where = {"metadata": {"path": str(ROOT / "examples")}}
        ExecutePreprocessor(timeout=TIMEOUT, coalesce_streams=True).preprocess(notebook, where)
        _without_start_up_noise(notebook)
    page, made = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name})
    title, text = page.lstrip().split("\n", 1)
    links = f"[Notebook]({name}.ipynb)"
    figures = {f"tutorials/{path}": content for path, content in made["outputs"].items()}
    return {
        f"tutorials/{name}.md": f"{title}\n\n{links}\n{text}",
        f"tutorials/{name}.ipynb": jupytext.writes(notebook, fmt="ipynb"),
        **figures,
    }


def _without_start_up_noise(notebook: Any) -> None:
    """Take out what TensorFlow's C++ code writes before it can be told not to."""
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                lines = output["text"].splitlines(keepends=True)
                output["text"] = "".join(line for line in lines if not NOISE.match(line))
        cell.outputs = [one for one in cell.outputs if one.get("text", "shown").strip()]


def commands() -> str:
    """Return every command with its options, as Typer writes them."""
    typer = [sys.executable, "-m", "typer", "kerastl.cli.app", "utils", "docs", "--name", "kerastl"]
    return subprocess.run(typer, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def measured() -> str:
    """Return the tables of each file of `benchmarks/results/`."""
    lines = [
        "# Results of the benchmarks",
        "",
        "Made from `benchmarks/results/*.json`, which have all rounds and versions.",
    ]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines += ["", f"## {path.stem}", "", f"`benchmarks/{path.stem}.py`, {found['date'][:10]}."]
        for title, rows in found.get("tables", {}).items():
            lines += ["", f"**{title}**", "", *_table(rows)]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (names, ["---"] * len(names), *cells)]


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
