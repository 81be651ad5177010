"""Figures for notebooks from the files of a run."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kerastl.errors import DataError
from kerastl.results.run_files import Json, RunFiles
from kerastl.runs.classifier import images_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 160  # pixels


class ShownAnswers(list[Json]):
    """Rows of answers, as `Run.top_losses` describes them, that `show` draws.

    Args:
        rows: with the names of their pictures.
        files: of the run.
    """

    def __init__(self, rows: Sequence[Json], files: RunFiles):
        super().__init__(rows)
        self._files = files

    def show(self) -> "Figure":
        """Return a figure of the images, each with its truth and the answer."""
        from kerastl._figures import image_grid  # matplotlib takes half a second

        addresses = [self._files.picture(row["file"]) for row in self]
        if not addresses or None in addresses:
            raise DataError(
                f"{self._files.directory} has no pictures of these images. Run `kerastl "
                "report RUN --measure` to write them again."
            )
        encoded = [base64.b64decode(str(one).partition(",")[2]) for one in addresses]
        return image_grid(images_at(encoded, (_SIDE, _SIDE)), [_title(row) for row in self])


def _title(row: Json) -> str:
    sure = f" ({row['probability']:.0%})" if "probability" in row else ""
    return f"{row['label']}\nanswered {row['answer']}{sure}"


def plot_run_confusion(files: RunFiles) -> "Figure":
    """Return the figure of `Run.plot_confusion`."""
    from kerastl.results.page_plots import plot_confusion

    if files.evaluation is None:
        raise DataError(
            f"{files.directory} has no predictions, because it has no page. Run `kerastl "
            f"report {files.directory}` to write both."
        )
    matrix = files.evaluation.get("confusion")
    if matrix is None:
        raise DataError(
            f"{files.directory} has no confusions: they need a classification with test "
            "images. Use `top_losses` instead."
        )
    return plot_confusion(matrix, files.class_names)
