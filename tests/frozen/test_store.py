import contextlib
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerastl.errors import ArgumentError, KerastlError
from kerastl.frozen import entry, store
from kerastl.frozen.entry import fits_float16
from kerastl.frozen.store import ActivationStore, Recorder

# A process that writes entries of 64 x 1,000 floats for ever, slowly, and says so.
WRITER = """
import sys, time
import numpy as np
from kerastl.frozen.store import ActivationStore, Recorder
store, first = ActivationStore(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for number in range(first, 10**6):
    def compute():
        for batch in range(8):
            time.sleep(0.001)
            yield [np.full((8, 1000), number % 1000, "float32"), np.full((8, 3), batch, "float32")]
    recorder = Recorder(store, f"key{number}", 64)
    for batch in compute():
        recorder.append(batch)
    recorder.finish()
"""


def batches(*arrays, size=4):
    """A `compute` over arrays, which counts how often it was called."""

    def compute():
        compute.calls += 1
        for start in range(0, len(arrays[0]), size):
            yield [array[start : start + size] for array in arrays]

    compute.calls = 0
    return compute


def get_or_compute(store, key, count, compute, **options):
    """Return the arrays of a key; compute and store them when they are not there."""
    if (found := store.get(key)) is not None:
        return found.arrays
    recorder = Recorder(store, key, count, **options)
    with contextlib.closing(recorder):
        for outputs in compute():
            recorder.append(outputs)
        return recorder.finish()


def numbers(rows=10, dim=3, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype("float32")


def files_of(directory):
    folder = directory / "activations"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def forget():
    store._verified.clear()


def test_computed_once(tmp_path):
    compute = batches(numbers(), numbers(dim=5, seed=1))
    for _ in range(3):
        x, y = get_or_compute(ActivationStore(tmp_path), "k", 10, compute, description="d")
        np.testing.assert_array_equal(x, numbers().astype("float16"))
        np.testing.assert_array_equal(y, numbers(dim=5, seed=1).astype("float16"))
        assert isinstance(x, np.memmap)
        assert not x.flags.writeable
        forget()
    assert compute.calls == 1
    assert files_of(tmp_path) == ["k"]
    assert sorted(os.listdir(tmp_path / "activations" / "k")) == ["0.bin", "1.bin", "entry.json"]
    (info,) = ActivationStore(tmp_path).entries()
    assert (info.key, info.description) == ("k", "d")
    assert info.num_bytes == ActivationStore(tmp_path).size() > 10 * 8 * 2


def test_raw_file_is_little_endian(tmp_path):
    get_or_compute(ActivationStore(tmp_path), "k", 10, batches(numbers()))
    raw = np.fromfile(tmp_path / "activations" / "k" / "0.bin", "<f2").reshape(10, 3)
    np.testing.assert_array_equal(raw, numbers().astype("float16"))


def test_float32_is_exact(tmp_path):
    (x,) = get_or_compute(ActivationStore(tmp_path), "k", 10, batches(numbers()), dtype="float32")
    np.testing.assert_array_equal(x, numbers())
    with pytest.raises(ArgumentError, match="`dtype` must be one of 'float16', 'float32'"):
        get_or_compute(ActivationStore(tmp_path), "l", 10, batches(numbers()), dtype="int8")


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("where", [0, 5, 9])
def test_large_numbers_become_bfloat16(tmp_path, where, on_disk):
    large, small = numbers(), numbers(seed=1)
    large[where, 1] = -1e6
    recorder = store.Recorder(ActivationStore(tmp_path) if on_disk else None, "k", 10)
    for outputs in batches(large, small)():
        recorder.append(outputs)
    x, y = recorder.finish()
    assert (x.dtype, y.dtype) == (ml_dtypes.bfloat16, np.float16)
    np.testing.assert_allclose(x.astype("float32"), large, rtol=5e-3)
    forget()
    if on_disk:
        again = ActivationStore(tmp_path).get("k").arrays[0]
        np.testing.assert_array_equal(again.astype("float32"), x.astype("float32"))


numbers_of_bfloat16 = st.one_of(
    st.floats(-(2.0**127), 2.0**127, width=32), st.sampled_from([np.inf, -np.inf, np.nan])
)
finite_or_not = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=numbers_of_bfloat16
)


@settings(max_examples=60, deadline=None)
@given(finite_or_not, st.integers(1, 4))
def test_any_array_comes_back_rounded(array, size):
    with tempfile.TemporaryDirectory() as folder:
        (x,) = get_or_compute(ActivationStore(folder), "k", len(array), batches(array, size=size))
        assert x.shape == array.shape
        dtype = np.float16 if fits_float16(array) else ml_dtypes.bfloat16
        assert x.dtype == dtype
        if dtype == np.float16:
            np.testing.assert_array_equal(x, array.astype(dtype))
        else:
            np.testing.assert_allclose(x.astype("float32"), array, rtol=2**-7, atol=1e-7)


@pytest.mark.parametrize(
    ("values", "fits"),
    [([0.0], True), ([65504.0], True), ([65505.0], False), ([-7e4], False), ([], True),
     ([float("nan"), float("inf"), 1.0], True), ([float("nan"), 7e4], False)],
)  # fmt: skip
def test_fits_float16(values, fits):
    assert fits_float16(np.array(values, "float32")) is fits


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "bit": lambda folder: flip_a_bit(folder / "0.bin"),
    "truncated": lambda folder: os.truncate(folder / "0.bin", 30),
    "file gone": lambda folder: (folder / "0.bin").unlink(),
    "record gone": lambda folder: (folder / "entry.json").unlink(),
    "record torn": lambda folder: os.truncate(folder / "entry.json", 30),
    "record empty": lambda folder: (folder / "entry.json").write_text("{}"),
    "record of another": lambda folder: (folder / "entry.json").write_text('{"format": 1}'),
    "record a list": lambda folder: (folder / "entry.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_found_and_computed_again(tmp_path, damage):
    compute = batches(numbers())
    get_or_compute(ActivationStore(tmp_path), "k", 10, compute)
    DAMAGES[damage](tmp_path / "activations" / "k")
    forget()
    with pytest.warns(UserWarning, match="are damaged .* computes them again"):
        (x,) = get_or_compute(ActivationStore(tmp_path), "k", 10, compute)
    np.testing.assert_array_equal(x, numbers().astype("float16"))
    assert compute.calls == 2
    assert files_of(tmp_path) == ["k"]
    forget()
    assert ActivationStore(tmp_path).get("k") is not None


def test_the_entry_not_used_for_the_longest_time_is_evicted(tmp_path):
    small = ActivationStore(tmp_path)
    get_or_compute(small, "a", 10, batches(numbers(dim=500)))
    size = small.size()
    bounded = ActivationStore(tmp_path, max_bytes=int(3.5 * size))
    for key in "bc":
        get_or_compute(bounded, key, 10, batches(numbers(dim=500)))
    for age, key in enumerate("cba"):
        os.utime(tmp_path / "activations" / key / "entry.json", (age, age))
    assert [info.key for info in bounded.entries()] == ["c", "b", "a"]
    bounded.get("c")
    get_or_compute(bounded, "d", 10, batches(numbers(dim=500)))
    assert files_of(tmp_path) == ["a", "c", "d"]
    assert bounded.size() <= bounded.bound()


def test_an_evicted_entry_can_be_read_on(tmp_path):
    size = 10 * 500 * 2 + 1000
    bounded = ActivationStore(tmp_path, max_bytes=size)
    (x,) = get_or_compute(bounded, "a", 10, batches(numbers(dim=500)))
    get_or_compute(bounded, "b", 10, batches(numbers(dim=500, seed=1)))
    assert files_of(tmp_path) == ["b"]
    np.testing.assert_array_equal(x, numbers(dim=500).astype("float16"))


def test_larger_than_the_bound_stays_in_memory(tmp_path):
    bounded = ActivationStore(tmp_path, max_bytes=100)
    with pytest.warns(UserWarning, match=r"not stored: the store can use 0\.0 MB\. kerastl keeps"):
        (x,) = get_or_compute(bounded, "a", 10, batches(numbers(dim=500)))
    np.testing.assert_array_equal(x, numbers(dim=500).astype("float16"))
    assert not isinstance(x, np.memmap)
    assert files_of(tmp_path) == []


def test_larger_than_memory_too_is_none(tmp_path, monkeypatch):
    bounded = ActivationStore(tmp_path, max_bytes=100)
    recorder = store.Recorder(bounded, "a", 10, memory_bytes=100)
    with pytest.warns(UserWarning, match="kerastl computes them again when it needs them"):
        recorder.append([numbers(dim=500)])
    assert recorder.finish() is None


def test_default_bound(tmp_path, monkeypatch):
    usage = {"free": 10**9}
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: type("Usage", (), usage))
    assert ActivationStore(tmp_path).bound() == 2 * 10**8
    usage["free"] = 10**12
    assert ActivationStore(tmp_path).bound() == 20 * 10**9
    assert ActivationStore(tmp_path, max_bytes=5).bound() == 5
    with pytest.raises(ArgumentError, match="`max_bytes` must be an int of at least 0"):
        ActivationStore(tmp_path, max_bytes=-1)


def test_default_directory(tmp_path, monkeypatch, cache):
    assert ActivationStore().directory == cache
    monkeypatch.delenv("KERASTL_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ActivationStore().directory == tmp_path / ".cache" / "kerastl"


@pytest.mark.parametrize("full_after", [0, 1, 2, 3, 4, 5])
def test_full_disk_goes_on_in_memory(tmp_path, monkeypatch, full_after):
    left = [full_after]

    class Full(entry._Column):
        def append(self, values):
            if not left[0]:
                self._file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            left[0] -= 1
            super().append(values)

    monkeypatch.setattr(entry, "_Column", Full)
    with pytest.warns(UserWarning, match=r"not stored: .*No space left .*kerastl cache --clear"):
        x, y = get_or_compute(
            ActivationStore(tmp_path), "k", 10, batches(numbers(), numbers(seed=1))
        )
    np.testing.assert_array_equal(x, numbers().astype("float16"))
    np.testing.assert_array_equal(y, numbers(seed=1).astype("float16"))
    assert files_of(tmp_path) == []


def test_full_disk_at_the_end_goes_on_in_memory(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(entry, "flush_to_disk", full)
    with pytest.warns(UserWarning, match="No space left"):
        (x,) = get_or_compute(ActivationStore(tmp_path), "k", 10, batches(numbers()))
    np.testing.assert_array_equal(x, numbers().astype("float16"))
    assert files_of(tmp_path) == []


@pytest.mark.faults
def test_file_size_limit_of_the_system(tmp_path):
    program = (
        "import resource, sys, warnings; import numpy as np;"
        "from kerastl.frozen.store import ActivationStore, Recorder;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000));"
        "recorder = Recorder(ActivationStore(sys.argv[1]), 'k', 64);"
        "[recorder.append([np.full((8, 100), i, 'float32')]) for i in range(8)];"
        "x, = recorder.finish();"
        "print((x[:, 0] == np.repeat(range(8), 8)).all(), isinstance(x, np.memmap))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "False"], done.stderr
    assert "File too large" in done.stderr
    assert files_of(tmp_path) == []


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not stored"):
        (x,) = get_or_compute(ActivationStore(tmp_path / "file"), "k", 10, batches(numbers()))
    assert len(x) == 10


@pytest.mark.parametrize("count", [9, 11])
def test_wrong_count(tmp_path, count):
    with pytest.raises(KerastlError, match=f"number of activations must be {count}"):
        get_or_compute(ActivationStore(tmp_path), "k", count, batches(numbers()))
    assert files_of(tmp_path) == []


def test_a_failure_leaves_nothing(tmp_path):
    def compute():
        yield [numbers()]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_or_compute(ActivationStore(tmp_path), "k", 20, compute)
    assert files_of(tmp_path) == []


def test_clear(tmp_path):
    filled = ActivationStore(tmp_path)
    get_or_compute(filled, "a", 10, batches(numbers()))
    get_or_compute(filled, "b", 10, batches(numbers()))
    size = filled.size()
    assert filled.clear() == size > 0
    assert files_of(tmp_path) == []
    assert filled.size() == 0
    assert ActivationStore(tmp_path / "never").clear() == 0


def test_what_dead_processes_left_is_removed(tmp_path):
    folder = tmp_path / "activations"
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = entry.socket.gethostname()
    old = folder / f".tmp-1-{'0' * 32}-elsewhere"
    leftovers = [
        folder / f".tmp-{dead.pid}-{'0' * 32}-{host}",
        folder / f".tmp-{os.getpid()}-{'0' * 32}-{host}",
        folder / f".tmp-1-{'1' * 32}-elsewhere",
        old,
    ]
    for path in leftovers:
        path.mkdir(parents=True)
        (path / "0.bin").write_bytes(b"half")
    os.utime(old, (0, 0))
    get_or_compute(ActivationStore(tmp_path), "k", 10, batches(numbers()))
    assert files_of(tmp_path) == [leftovers[2].name, leftovers[1].name, "k"]


def test_the_second_to_finish_uses_what_is_there(tmp_path):
    shared = ActivationStore(tmp_path)
    first, second = store.Recorder(shared, "k", 10), store.Recorder(shared, "k", 10)
    first.append([numbers()])
    second.append([numbers()])
    (x,), (y,) = first.finish(), second.finish()
    assert x.filename == y.filename
    assert files_of(tmp_path) == ["k"]


def write_shared(directory, start, results):
    def compute():
        start.wait()
        for _ in range(20):
            yield [numbers(10, 1000)]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (x,) = get_or_compute(ActivationStore(directory), "k", 200, compute)
    results.put(float(x.astype("float64").sum()))


@pytest.mark.faults
def test_two_processes_write_the_same(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    arguments = (tmp_path, start, results)
    processes = [context.Process(target=write_shared, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    sums = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sums[0] == sums[1] == float(numbers(10, 1000).astype("float16").astype("d").sum() * 20)
    assert files_of(tmp_path) == ["k"]


@pytest.mark.faults
def test_kill_at_any_moment_leaves_whole_entries_or_none(tmp_path):
    rng, whole = np.random.default_rng(0), 0
    for round_number in range(6):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(1000 * round_number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.02, 0.4))
            writer.send_signal(signal.SIGKILL)
        forget()
        checked = ActivationStore(tmp_path)
        for info in checked.entries():
            x, y = checked.get(info.key).arrays  # a warning would be an error here
            number = int(info.key.removeprefix("key"))
            assert x.shape == (64, 1000)
            assert (x == number % 1000).all()
            assert (y[:, 0] == np.repeat(range(8), 8)).all()
            whole += 1
        get_or_compute(checked, f"after{round_number}", 10, batches(numbers()))
        assert not any(name.startswith(".tmp") for name in files_of(tmp_path))
        checked.clear()
    assert whole


def test_pages_can_be_dropped(tmp_path):
    (x,) = get_or_compute(ActivationStore(tmp_path), "k", 10, batches(numbers()))
    before = np.array(x)
    entry.drop_pages(x)
    np.testing.assert_array_equal(x, before)
    entry.drop_pages(before)


def test_record_tells_what_is_in_the_entry(tmp_path):
    get_or_compute(ActivationStore(tmp_path), "k", 10, batches(numbers()))
    record = json.loads((tmp_path / "activations" / "k" / "entry.json").read_text())
    assert record["count"] == 10
    assert record["arrays"][0]["shape"] == [10, 3]
    assert record["seconds"] >= 0
