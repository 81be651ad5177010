"""What a person sees of `kerastl train` on a terminal."""

import os
import re
import sys
import time

import pytest

pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")

STEPS = (
    "Starting TensorFlow", "Reading the images", "Running the frozen stages",
    "Preparing fine_tune", "Training, fine_tune", "Measuring on the test images",
    "Exporting a SavedModel", "Writing the page",
)  # fmt: skip
NOISE = re.compile(r"tensorflow/|absl|cuda|onednn|WARNING|^[IWE]0000", re.IGNORECASE | re.MULTILINE)


def on_a_terminal(*arguments):
    """Run the command on a terminal; return what it wrote, and when each part came."""
    child, screen = pty.fork()
    if child == 0:
        os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)  # this process has set its own
        words = [sys.executable, "-m", "kerastl", *map(str, arguments)]
        os.execvpe(words[0], words, {**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    parts = []
    try:
        while part := os.read(screen, 65536):
            parts.append((time.monotonic(), part))
    except OSError:  # the terminal has no more
        pass
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), parts


@pytest.mark.slow
def test_each_step_has_a_name_and_no_library_speaks(finished_run, tmp_path):
    status, parts = on_a_terminal(
        "train", finished_run.images, "--backbone", finished_run.backbone,
        "--scenario", "large_different", "--epochs", 1, "--output", tmp_path / "run",
    )  # fmt: skip
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(part for _, part in parts).decode())
    assert status == 0, text
    places = [text.find(name) for name in STEPS]
    assert -1 not in places
    assert places == sorted(places)
    assert not NOISE.search(text), NOISE.search(text)
