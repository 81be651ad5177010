"""Images without labels, for prediction."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from kerastl._checks import check_choice
from kerastl.data import scan
from kerastl.data.listing import is_junk, is_side_file
from kerastl.data.options import AS_ALWAYS, PixelRules
from kerastl.data.pixels import FileSource
from kerastl.data.split import Split
from kerastl.errors import BadFile, DataError, UnreadableImagesError


def load_unlabelled(
    paths: Sequence[str], *, on_bad: str = "error", rules: PixelRules = AS_ALWAYS
) -> tuple[Split, list[BadFile]]:
    """Load image files, and those in folders, in their order; labels are -1.

    Args:
        paths: files, or folders that are searched through for images.
        on_bad: `"error"` refuses them all when a file is unreadable; `"skip"` leaves such out.
        rules: how they become pixels.

    Returns:
        The images, whose `paths` name them, and the files that were left out.

    Raises:
        DataError: there is no readable image.
        UnreadableImagesError: some files are no whole images; the error names each.
    """
    check_choice("on_bad", on_bad, ("error", "skip"))
    files = [file for path in paths for file in _files(path)]
    reports, bad = scan.scan_files(files, rules=rules)
    if bad and on_bad == "error":
        raise UnreadableImagesError(bad, len(files))
    if not reports:
        raise DataError(f"No image can be read. Received: {', '.join(paths)}.")
    source = FileSource(reports, [report.path for report in reports], rules)
    return Split(source, np.full(len(reports), -1), num_classes=0), bad


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path  # a missing file is named by the scan
        return
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = sorted(name for name in subfolders if not is_junk(name))
        for name in sorted(names):
            if not is_junk(name) and not is_side_file(name):
                yield os.path.join(folder, name)
