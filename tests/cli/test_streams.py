"""The command with standard streams that are closed, full or narrow."""

import os
import subprocess
import sys

import pytest
from PIL import Image

pytestmark = pytest.mark.faults  # each is a process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes, one of which has a name that is no ASCII."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("ä wasp", "bee"):
        (folder / name).mkdir()
        Image.new("RGB", (4, 4)).save(folder / name / "ü.png")
        (folder / name / "ö.jpg").write_bytes(b"\xff\xd8")
    return folder


def shell(folder, redirect, *options, **environment):
    """Run `kerastl scan` under a shell."""
    command = [sys.executable, "-c", "from kerastl.cli.app import main; main()", "scan", folder]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", *command, *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize(
    ("redirect", "told"),
    [
        (">&-", "Cannot read or write standard output: it is closed."),
        ("> /dev/full", "Cannot read or write standard output: No space left on device."),
    ],
)
def test_output_that_cannot_be_written_is_told(folder, redirect, told, options):
    done = shell(folder, redirect, *options)
    assert done.returncode == 1
    assert f"kerastl: {told}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_an_encoding_that_cannot_hold_a_name_is_told(folder):
    ascii_alone = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = shell(folder, "", **ascii_alone)
    assert done.returncode == 1
    assert "its encoding is ascii. Set PYTHONIOENCODING=utf-8" in done.stderr
    assert "Traceback" not in done.stderr
    done = shell(folder, "", "--json", **ascii_alone)
    assert "\\u00e4 wasp" in done.stdout


def test_without_any_stream(folder):
    done = shell(folder, "<&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
