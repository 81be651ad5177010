"""Checks which files are complete images, with the operation of training."""

import atexit
import os
import queue
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kerastl._checks import check_packages
from kerastl.data.file_report import FileReport, printable
from kerastl.data.options import AS_ALWAYS, RGB, PixelRules
from kerastl.data.scan_worker import Worker, WorkerDiedError
from kerastl.errors import BadFile

MAX_PIXELS = 89_000_000
"""The most pixels an image may have: decoding more takes more than a gigabyte of memory."""

_BLOCK = 128  # files that are asked of a child at a time
# A child takes four seconds and 400 MB to start, and decodes in eight threads.
_FILES_PER_CHILD = 5_000
_CORES_PER_CHILD = 8


def scan_files(
    paths: Sequence[str],
    *,
    max_pixels: int = MAX_PIXELS,
    sums: bool = False,
    rules: PixelRules = AS_ALWAYS,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[FileReport], list[BadFile]]:
    """Read every file once, whole, and tell the images from the rest.

    Pillow reads the headers, so that an image that is too large is never decoded; the decoder of
    the training pipeline then decodes each file in full. Where TensorFlow is imported, JPEG and PNG
    files are read here, up to 5,000: of 200,000 damaged ones none crashed it. All others, and what
    is damaged, are read in child processes, one of which stays for a minute: a file on which a
    decoder crashes is a bad file, and costs no other.

    Args:
        paths: Files, whatever their ending.
        max_pixels: The most pixels, `height * width`, that an image may have.
        sums: Whether to compute the SHA-256 of each image.
        rules: How files become pixels.
        progress: Called with the number of files that are done, from other threads.

    Returns:
        The readable images and the bad files, each in the order of `paths`.
    """
    if not paths:
        return [], []
    if rules.channels != RGB:
        check_packages("An image file with channels other than RGB", ["tifffile"], "tiff")
    asked = (max_pixels, sums, rules.bit_depth, rules.channels)

    done: list[str] = []

    def tell_done(block: Iterable[str]) -> None:
        done.extend(block)
        if progress is not None:
            progress(len(done))

    def scan(block: Sequence[str]) -> list[FileReport | BadFile]:
        worker = _take()
        try:
            reports = examine_with_retry(worker, block, asked)
        finally:
            _idle.put(worker)
        tell_done(block)
        return reports

    here = _examine_here(paths, asked)
    tell_done(here)
    rest = [path for path in paths if path not in here]
    blocks = [rest[start : start + _BLOCK] for start in range(0, len(rest), _BLOCK)]
    with ThreadPoolExecutor(_num_children(len(rest))) as pool:
        reports = iter([report for block in pool.map(scan, blocks) for report in block])
    found = [here[path] if path in here else next(reports) for path in paths]
    good = [report for report in found if isinstance(report, FileReport)]
    return good, [report for report in found if isinstance(report, BadFile)]


def _examine_here(paths: Sequence[str], asked: Sequence[Any]) -> dict[str, FileReport]:
    """Return the reports on what this process reads itself, by path."""
    if "tensorflow" not in sys.modules or len(paths) >= _FILES_PER_CHILD:
        return {}
    from kerastl.data.examine import Asked, examine_plain

    reports = examine_plain(paths, Asked(*asked))
    return {report.path: report for report in reports if report is not None}


def _num_children(num_files: int) -> int:
    by_cores = (os.cpu_count() or 1) // _CORES_PER_CHILD
    return max(1, min(by_cores, num_files // _FILES_PER_CHILD))


def examine_with_retry(
    worker: Worker, paths: Sequence[str], asked: Sequence[Any]
) -> list[FileReport | BadFile]:
    """Examine files; when the child dies, each by itself, so that the one to blame is found."""
    try:
        return worker.examine(paths, asked)
    except WorkerDiedError as error:
        if len(paths) == 1:
            return [BadFile(printable(paths[0]), str(error))]
    return [report for path in paths for report in examine_with_retry(worker, [path], asked)]


_idle: "queue.LifoQueue[Worker]" = queue.LifoQueue()


def _take() -> Worker:
    try:
        return _idle.get_nowait()
    except queue.Empty:
        return Worker()


def _close_all() -> None:
    while not _idle.empty():
        _idle.get_nowait().close()


def _forget() -> None:
    """In a fork of this process: the children belong to the parent."""
    global _idle
    _idle = queue.LifoQueue()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)
