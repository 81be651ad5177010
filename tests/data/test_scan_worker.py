"""A child that crashes, hangs, leaves or cannot start costs no file but the one to blame."""

import json
import os
import queue
import signal
import sys

import pytest

from kerastl.data import scan
from kerastl.data.scan_worker import COMMAND, Worker, WorkerDiedError
from kerastl.errors import BadFile, KerastlError
from tests.data.crafted import animated, encoded

# A child as ours, in which the names of files say what happens instead of a decoder.
_ACTING_CHILD = """
import ctypes, os, signal, sys, time, types
from kerastl.data import scan_child

def tuple_of(*asked):
    return asked

def examine_files(paths, asked):
    for path in paths:
        if path.startswith("crash"):
            ctypes.string_at(0)
        if path.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if path.startswith("hang"):
            time.sleep(60)
        if path.startswith("slow"):
            time.sleep(0.3)
        if path.startswith("leave"):
            sys.exit(3)
    return [(path, "JPEG", 1, 2, os.getpid(), False, ("a remark",), "", 0, "") for path in paths]

acting = types.SimpleNamespace(examine_files=examine_files, Asked=tuple_of)
sys.modules["kerastl.data.examine"] = acting
scan_child.IDLE_SECONDS = float(sys.argv[1])
scan_child.main()
"""
# Our own child but for two things: it decodes with channels=0, and lets animated WebP through to
# that, which corrupts the heap (5 of 5 runs of TensorFlow 2.21).
_CRASHING_CHILD = """
import functools
import tensorflow as tf
from kerastl.data import decode, examine, scan_child

decode_image = functools.partial(tf.io.decode_image, channels=0)
decode.decode_image = lambda data, **how: tf.ensure_shape(
    decode_image(data, expand_animations=True)[0], (None, None, 3)
)
check = examine._check_header

def check_header(path, image, max_pixels):
    image.is_animated = False
    return check(path, image, max_pixels)

examine._check_header = check_header
scan_child.main()
"""


@pytest.fixture
def worker(request):
    idle, patience = getattr(request, "param", (60, 60))
    made = Worker((sys.executable, "-c", _ACTING_CHILD, str(idle)), patience)
    yield made
    made.close()


def examine(worker, *paths):
    return scan.examine_with_retry(worker, paths, (10,))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash.jpg", "the decoder crashed (SIGSEGV)"),
        ("killed.jpg", "the decoder was killed (SIGKILL), probably because the memory is full"),
        ("leave.jpg", "the decoder ended with status 3"),
    ],
)
def test_a_crash_costs_one_file(worker, name, reason):
    first, bad, last = examine(worker, "a.jpg", name, "b.jpg")

    assert bad == BadFile(name, reason)
    assert (first.path, last.path) == ("a.jpg", "b.jpg")
    assert first.remarks == ("a remark",)
    assert first.content != last.content, "the child after the crash is another process"


@pytest.mark.parametrize("worker", [(60, 0.5)], indirect=True)
def test_a_file_that_is_never_decoded_costs_one_file(worker):
    bad, good = examine(worker, "hang.jpg", "a.jpg")

    assert bad == BadFile("hang.jpg", "it was not decoded within 0.5 seconds")
    assert good.path == "a.jpg"


@pytest.mark.parametrize("worker", [(2, 60)], indirect=True)
def test_a_child_that_went_idle_is_started_again(worker):
    first = examine(worker, "a.jpg")[0]
    assert worker._process.wait(timeout=60) == 0, "it goes of its own accord"

    assert examine(worker, "b.jpg")[0].content != first.content


def test_the_child_stays_for_the_next_request(worker):
    assert examine(worker, "a.jpg")[0].content == examine(worker, "b.jpg")[0].content


def test_a_child_that_cannot_start_is_no_fault_of_the_files():
    worker = Worker((sys.executable, "-c", "import sys; sys.exit('no TensorFlow here')"))

    with pytest.raises(KerastlError, match=r"cannot start \(exit 1\). no TensorFlow here"):
        examine(worker, "a.jpg")


def test_several_children_share_the_files_and_keep_their_order(monkeypatch):
    command = (sys.executable, "-c", _ACTING_CHILD, "60")
    monkeypatch.setattr(scan, "_idle", queue.LifoQueue())
    monkeypatch.setattr(scan, "Worker", lambda: Worker(command))
    monkeypatch.setattr(scan, "_num_children", lambda num_files: 2)
    monkeypatch.setattr(scan, "_BLOCK", 2)
    paths = ["slow0", "a", "slow1", "b", "crash0", "slow2", "c", "crash1", "d"]

    good, bad = scan.scan_files(paths)
    workers = scan._idle.qsize()
    scan._close_all()

    assert [report.path for report in good] == ["slow0", "a", "slow1", "b", "slow2", "c", "d"]
    assert [path for path, _ in bad] == ["crash0", "crash1"]
    assert workers == 2
    assert len({report.content for report in good[:4]}) == 2, "the first two blocks ran at once"


def test_an_interrupt_leaves_no_answer_for_the_next_request(worker, monkeypatch):
    examine(worker, "a.jpg")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_read_line", interrupted)
        with pytest.raises(KeyboardInterrupt):
            examine(worker, "b.jpg")

    assert [report.path for report in examine(worker, "c.jpg", "d.jpg")] == ["c.jpg", "d.jpg"]


def test_ctrl_c_does_not_reach_the_child(worker):
    process = examine(worker, "a.jpg")[0].content
    os.kill(process, signal.SIGINT)

    assert examine(worker, "b.jpg")[0].content == process


def test_names_that_are_not_utf_8_reach_the_child(worker):
    name = os.fsdecode(b"caf\xe9\n\xff.jpg")

    assert examine(worker, name)[0].path == name


def test_a_folder_of_the_user_is_no_place_for_modules(tmp_path, monkeypatch):
    (tmp_path / "kerastl.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path)

    assert "-P" in COMMAND
    assert scan.scan_files(["nothing.jpg"])[1] == [
        BadFile("nothing.jpg", "No such file or directory")
    ]


@pytest.mark.faults
def test_a_decoder_that_really_crashes_costs_one_file(tmp_path):
    paths = []
    for name, data in {"a.webp": encoded("WEBP"), "b.webp": animated("WEBP")}.items():
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    worker = Worker((sys.executable, "-P", "-c", _CRASHING_CHILD))

    good, bad = scan.examine_with_retry(worker, paths, (10_000,))
    worker.close()

    assert good.path == paths[0]
    assert bad.path == paths[1]
    assert bad.reason.startswith("the decoder crashed (SIG")


def test_a_worker_that_died_says_so(worker):
    with pytest.raises(WorkerDiedError, match="crashed"):
        worker.examine(["crash"], (10,))


def test_answers_are_lines_of_json():
    # json.dumps never writes a newline into a line, whatever a reason holds.
    assert "\n" not in json.dumps([["a\nb", "reason\u2028"]])
