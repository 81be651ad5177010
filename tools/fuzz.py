"""Mutated images, texts, requests and runs: each is accepted and usable, or named with a reason.

    python tools/fuzz.py --images 100000 --texts 20000 --requests 100000
    python tools/fuzz.py --runs 2000 --run RUN --data DIR

What is counted as a failure: a file that the scan neither accepts nor names; an accepted image that
the training pipeline cannot decode; a reason that is empty or longer than a line; an exception that
is no `KerastlError`; a text that is accepted and does not survive being written and read again; a
table of which a row gets lost. A failure is kept beside the result, and the exit status is 1.
"""

import argparse
import base64
import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

from kerastl.backbones.table import parse_backbone
from kerastl.data import manifest, scan, skip_list
from kerastl.data.pixels import FileSource
from kerastl.data.tables import list_table
from kerastl.errors import KerastlError
from kerastl.model.recipes import make_recipe
from kerastl.results.run_files import read_labelled_model, read_labels, read_recipe
from kerastl.runs.run import load_run
from kerastl.serving import protocol_v1, protocol_v2
from kerastl.serving.query import Rejected, Signature
from tests.data.crafted import FILES, Good
from tests.serving.hostile import KINDS

_BLOCK = 512
_LARGEST = 40_000  # bytes of a seed: larger ones slow the mutations down and find nothing new
_TOKENS = [b"", b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xd8\xff", b"IDAT", b"IEND", b"RIFF"]
_WORDS = [
    b"null", b"true", b"-1", b"1e999", b"NaN", b'"', b"{", b"]", b"[[", b",", b"\n", b"\t", b"\\",
    b"\xef\xbb\xbf", b"\xff", b"\0", b"9" * 40, b"0.0", b"Infinity", b"../", b"#", b"(", b"=",
]  # fmt: skip
_VALUES = [
    b"null", b"true", b"-1", b"0", b"1", b"0.5", b"1e999", b"NaN", b'""', b'"x"', b"[]", b"{}",
    b"[1, 2]", b"[0]", b"1" * 30, b"1" * 5000, b"[" * 9000, b'"\\ud800"', b'"imagenet"',
]  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"


def mutate(
    data: bytes, rng: np.random.Generator, tokens: list[bytes], other: bytes, most: int
) -> bytes:
    """Return the bytes after one to `most` changes."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, most + 1))):
        if not changed:
            return bytes(other)
        at, length = int(rng.integers(len(changed))), int(2 ** rng.uniform(0, 8))
        end = min(len(changed), at + length)
        kind = rng.integers(8)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at:end] = rng.bytes(end - at)
        elif kind == 2:
            del changed[at:end]
        elif kind == 3:
            changed[at:at] = changed[at:end]
        elif kind == 4:
            del changed[at:]
        elif kind == 5:
            changed[at : at + 1] = tokens[int(rng.integers(len(tokens)))]
        elif kind == 6:
            start = int(rng.integers(max(1, len(other))))
            changed[at:end] = other[start : start + end - at]
        else:
            changed[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
    return bytes(changed)


def mutated_images(seeds: list[bytes], count: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield `count` mutated images; of every third PNG the checksums are right again."""
    for _ in range(count):
        one, other = (seeds[int(rng.integers(len(seeds)))] for _ in range(2))
        data = mutate(one, rng, _TOKENS, other, most=8)
        yield with_checksums(data) if rng.random() < 1 / 3 else data


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose checksums are right as far as its chunks go; other bytes as they are."""
    if not data.startswith(_PNG):
        return data
    parts, at = [_PNG], len(_PNG)
    while len(data) >= at + 12:
        end = at + 8 + int.from_bytes(data[at : at + 4])
        body = data[at + 4 : end]
        parts.append(data[at : at + 4] + body + zlib.crc32(body).to_bytes(4))
        at = end + 4
    return b"".join(parts) + data[at:]


def mutated_texts(seeds: list[bytes], count: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Yield `count` mutated texts: half with a value replaced, half with changed bytes."""
    for _ in range(count):
        one, other = (seeds[int(rng.integers(len(seeds)))] for _ in range(2))
        values = list(re.finditer(rb"(?<=: )[^,\n]+", one))
        if values and rng.random() < 0.5:
            start, end = values[int(rng.integers(len(values)))].span()
            yield one[:start] + _VALUES[int(rng.integers(len(_VALUES)))] + one[end:]
        else:
            yield mutate(one, rng, _WORDS, other, most=2)


class Outcomes:
    """What became of the inputs, and those that went wrong."""

    def __init__(self, folder: Path):
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._folder = folder

    def fail(self, what: str, data: bytes) -> None:
        """Keep an input that went wrong."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"failure-{len(self.failures)}"
        path.write_bytes(data)
        self.failures.append(f"{path}: {what}")


def fuzz_images(count: int, seed: int, outcomes: Outcomes) -> None:
    """Scan mutated images, and decode those that are accepted as training does."""
    rng = np.random.default_rng([seed, 0])
    seeds = [
        data
        for data, outcome in FILES.values()
        if isinstance(outcome, Good) and len(data) <= _LARGEST
    ]
    inputs = mutated_images(seeds, count, rng)
    with tempfile.TemporaryDirectory() as folder:
        while block := [data for data, _ in zip(inputs, range(_BLOCK), strict=False)]:
            paths = [f"{folder}/{index}" for index in range(len(block))]
            by_path = dict(zip(paths, block, strict=True))
            for path, data in by_path.items():
                Path(path).write_bytes(data)
            _check_block(by_path, outcomes)


def _check_block(by_path: dict[str, bytes], outcomes: Outcomes) -> None:
    reports, bad = scan.scan_files(list(by_path))
    named = [report.path for report in reports] + [path for path, _ in bad]
    for path in by_path:
        if named.count(path) != 1:
            outcomes.fail(f"named {named.count(path)} times", by_path[path])
    for path, reason in bad:
        outcomes.counts[f"rejected: {_kind(reason)}"] += 1
        if not reason.strip() or "\n" in reason or "Traceback" in reason:
            outcomes.fail(f"the reason {reason!r}", by_path[path])
        if "crashed" in reason or "was not decoded within" in reason:
            outcomes.fail(reason, by_path[path])
    for report in reports:
        outcomes.counts[f"accepted {report.format}{' by Pillow' * report.needs_pillow}"] += 1
    for report in _undecodable(reports):
        outcomes.fail("accepted, but training cannot decode it", by_path[report.path])


def _undecodable(reports: list) -> list:
    """Return the reports of images that the training pipeline cannot decode."""
    if not reports:
        return []
    source = FileSource(reports, [report.path for report in reports])
    try:
        images = list(source.dataset(tf.data.Dataset.range(len(reports)), (8, 8)))
    except tf.errors.OpError:
        if len(reports) == 1:
            return reports
        middle = len(reports) // 2
        return _undecodable(reports[:middle]) + _undecodable(reports[middle:])
    return [] if len(images) == len(reports) else reports


def _kind(reason: str) -> str:
    """Return a reason without what differs from file to file."""
    return reason.split(": ")[0] if " x " not in reason else "more pixels than max_pixels"


def fuzz_texts(count: int, seed: int, outcomes: Outcomes) -> None:
    """Read mutated recipes, tables, labels, lists, names of backbones and run directories."""
    with tempfile.TemporaryDirectory() as folder:
        readers = _readers(Path(folder))
        shares = {name: share for name, (_, _, share) in readers.items()}
        for number, (name, (read, seeds, share)) in enumerate(readers.items()):
            rng = np.random.default_rng([seed, 1 + number])
            inputs = round(count * share / sum(shares.values()))
            for data in mutated_texts(seeds, inputs, rng):
                _check_text(name, read, data, outcomes)


def _check_text(name: str, read: Callable[[bytes], None], data: bytes, outcomes: Outcomes) -> None:
    try:
        read(data)
        outcomes.counts[f"{name}: accepted"] += 1
    except KerastlError as error:
        outcomes.counts[f"{name}: {type(error).__name__}"] += 1
        if not str(error).strip():
            outcomes.fail(f"{name}: an error without a text", data)
    except Exception as error:  # that is what is looked for
        outcomes.counts[f"{name}: {type(error).__name__}, a failure"] += 1
        outcomes.fail(f"{name}: {type(error).__name__}: {error}", data)


Readers = dict[str, tuple[Callable[[bytes], None], list[bytes], float]]


def _readers(folder: Path) -> Readers:
    """Return for each kind of text how it is read and checked, its seeds, and its share."""
    numbers = {"num_stages": 6, "num_images": 900, "num_classes": 5}
    recipes = [
        json.dumps(make_recipe(name, **numbers).to_dict(), indent=2).encode()
        for name in ("small_similar", "large_similar", "guide", "fastai", "bit")
    ]
    recipes += [b'{"recipe": ' + text + b', "versions": {}}' for text in recipes]
    table = b'image,label,split\na/1.png,a,train\nb/2.png,b,val\n"a,3.png",a,test\n'
    tables = [table, table.replace(b",", b";"), b"\xef\xbb\xbfpath,class\n1.png,0\n2.png,10\n"]
    sums = {"a/1.png": "0" * 64, "b\\2\n.png": "f" * 64}
    manifest.write_manifest(str(folder / "sums"), sums)
    skip_list.write_skip_list(str(folder), {"a/1.png": "an empty file", "#b\t.png": "a\\b"})
    skips = (folder / skip_list.NAME).read_bytes()
    labels = [b"cat\ndog\n", "é\n日本\n".encode()]
    names = [b"MobileNetV2(alpha=0.35)", b"ResNet50", b"MobileNetV3Small(minimalistic=True)"]
    return {
        "recipe": (_reader(folder, "recipe.json", _recipe), recipes, 8),
        "table": (_reader(folder, "table.csv", _table), tables, 4),
        "labels": (_reader(folder, "labels.txt", _labels), labels, 2),
        "skip list": (_reader(folder, skip_list.NAME, _skips), [skips], 2),
        "manifest": (_reader(folder, "sums", _sums), [(folder / "sums").read_bytes()], 2),
        "backbone": (_backbone, names, 1.9),
        "run directory": _run_directory(folder / "run"),
    }


def _reader(folder: Path, name: str, read: Callable[[Path], None]) -> Callable[[bytes], None]:
    def write_and_read(data: bytes) -> None:
        (folder / name).write_bytes(data)
        read(folder / name)

    return write_and_read


def _recipe(path: Path) -> None:
    recipe = read_recipe(path)
    again = json.loads(json.dumps(recipe.to_dict(), allow_nan=False))
    _expect(type(recipe).from_dict(again) == recipe, "another recipe when read again")


def _table(path: Path) -> None:
    skips = path.with_name(skip_list.NAME)
    skips.unlink(missing_ok=True)
    listing = list_table(str(path))
    with open(path, encoding="utf-8-sig", newline="") as file:
        text = file.read()
    first = text.splitlines()[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    joined = any("are in several rows" in text for text in listing.warnings)
    _expect(joined or listing.num_files == len(rows) - 1, "a row got lost")


def _labels(path: Path) -> None:
    names = read_labels(path)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    _expect(read_labels(path) == names, "other labels when read again")


def _skips(path: Path) -> None:
    reasons = skip_list.read_skip_list(str(path.parent))
    skip_list.write_skip_list(str(path.parent), reasons)
    _expect(skip_list.read_skip_list(str(path.parent)) == reasons, "other skips when read again")


def _sums(path: Path) -> None:
    sums = manifest.read_manifest(str(path))
    manifest.write_manifest(str(path), sums)
    _expect(manifest.read_manifest(str(path)) == sums, "other sums when read again")


def _backbone(data: bytes) -> None:
    spec = parse_backbone(data.decode("utf-8", "surrogateescape"))
    _expect(parse_backbone(str(spec)) == spec, "another backbone when read again")


def _run_directory(folder: Path) -> tuple[Callable[[bytes], None], list[bytes], float]:
    """Return how a run directory is read whose labels or model are the mutated bytes."""
    import keras

    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
    folder.mkdir()
    model, labels = folder / "model.keras", folder / "labels.txt"
    keras.Model(inputs, outputs).save(model)
    whole = model.read_bytes()

    def read(data: bytes) -> None:
        is_model = data[:2] == b"PK"
        model.write_bytes(data if is_model else whole)
        labels.write_bytes(b"cat\ndog\n" if is_model else data)
        found, names = read_labelled_model(folder)
        _expect(found.output_shape == (None, len(names)), "names do not fit")

    return read, [whole, b"cat\ndog\n"], 0.1


SIGNATURES = {
    "serving_default": Signature("serving_default", "image", "float32", (32, 32, 3)),
    "serving_bytes": Signature("serving_bytes", "image_bytes", "string", ()),
}


def fuzz_requests(count: int, seed: int, outcomes: Outcomes) -> None:
    """Read mutated bodies of requests of both dialects."""
    rng = np.random.default_rng([seed, 20])
    seeds = [
        (content.partition(b"\r\n\r\n")[2], content.startswith(b"POST /v1"))
        for content in KINDS.values()
        if content.startswith(b"POST /v") and len(content) < _LARGEST
    ]
    bodies = [body for body, _ in seeds]
    for _ in range(count):
        body, is_v1 = seeds[int(rng.integers(len(seeds)))]
        (data,) = mutated_texts([body, bodies[int(rng.integers(len(bodies)))]], 1, rng)
        _check_request(data, is_v1, outcomes)


def _check_request(data: bytes, is_v1: bool, outcomes: Outcomes) -> None:
    name = "request v1" if is_v1 else "request v2"
    read = protocol_v1.parse_request if is_v1 else partial(_read_v2, length=str(len(data)))
    try:
        query = read(data, SIGNATURES, 256).query
        outcomes.counts[f"{name}: accepted"] += 1
        if not query.signature.takes_bytes and not np.isfinite(query.rows).all():
            outcomes.fail(f"{name}: pixels that are no numbers", data)
    except Rejected as rejected:
        outcomes.counts[f"{name}: {rejected.status}"] += 1
        if rejected.status not in (400, 404, 413) or not 0 < len(rejected.reason) < 2000:
            outcomes.fail(f"{name}: {rejected.status} {rejected.reason[:99]}", data)
    except Exception as error:  # that is what is looked for
        outcomes.counts[f"{name}: {type(error).__name__}, a failure"] += 1
        outcomes.fail(f"{name}: {type(error).__name__}: {error}", data)


def _read_v2(data: bytes, *rest: Any, length: str) -> Any:
    return protocol_v2.parse_request(data, length, *rest)


STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 1e308, -1e308, 1e25, 10**400, 2**70, "", "x", "\ud800", "\udc80", [],
    "../../etc/passwd", "/dev/zero", "9" * 5000, [[]], [None], [1, 2], {}, {"a": 1}, "{{ 7*7 }}",
    "$a_{$",
)  # fmt: skip
"""What is put in the place of values of run files."""


def fuzz_runs(count: int, seed: int, outcomes: Outcomes, run: Path, data: Path) -> None:
    """Give a run of which one file is mutated to each command that opens this file.

    `run` was trained on the folder `data`. Nothing outside the run may be read into what a command
    writes, and nothing be written there.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        beside, copy = Path(folder) / "secret.png", Path(folder) / "run"
        Image.new("RGB", (3, 3), "red").save(beside)
        secret = base64.b64encode(beside.read_bytes()).decode()
        _copy_run(run, copy)
        commands = _commands(copy, data, Path(folder) / "again")
        opened = {name: _files_opened(commands[name], copy) for name in commands}
        _copy_run(run, copy)
        files = {path.name for path in copy.iterdir() if path.is_file()}
        names = sorted(files & set.union(*opened.values()))
        for _ in range(count):
            _copy_run(run, copy)
            file, content = _mutated_run_file(copy, names, rng)
            for name in [name for name in commands if file in opened[name]]:
                ask = partial(_ask_command, commands[name], copy, secret)
                _check_text(f"run, {name}, {file}", ask, content, outcomes)
                shutil.rmtree(Path(folder) / "again", ignore_errors=True)
            if sorted(path.name for path in Path(folder).iterdir()) != ["run", "secret.png"]:
                outcomes.fail(f"run, {file}: something was written beside the run", content)


def _copy_run(run: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("logs", "report.html"))


Command = Callable[[], Any]


def _commands(run: Path, data: Path, again: Path) -> dict[str, Command]:
    """Return by name the uses of a run; `train` gets a folder of its own."""
    from kerastl.cli.app import app

    image = next(path for path in sorted(data.rglob("*")) if path.is_file())
    fast = ["--epochs", "1", "--no-export", "--no-page", "--output", str(again)]
    typed = {
        "report": ["report", str(run)],
        "predict": ["predict", str(run), str(image)],
        "evaluate": ["evaluate", str(run), str(data), "--json"],
        "export": ["export", str(run), "--calibrate"],
        "train": ["train", str(data), "--recipe", str(run), *fast],
    }
    commands = {name: partial(app, words, standalone_mode=False) for name, words in typed.items()}
    return {**commands, "top_losses": lambda: bool(load_run(run).top_losses(3))}


_watched: list[set[str] | None] = [None]


def _files_opened(command: Command, run: Path) -> set[str]:
    """Return the names of the files that a command opens."""

    def watch(event: str, args: tuple) -> None:
        if event == "open" and _watched[0] is not None and isinstance(args[0], str | os.PathLike):
            _watched[0].add(os.path.basename(args[0]))

    _watched[0] = found = set[str]()
    sys.addaudithook(watch)  # stays, and does nothing once nobody watches
    _ask_command(command, run, "")
    _watched[0] = None
    return found


def _ask_command(command: Command, run: Path, secret: str, _: bytes = b"") -> None:
    """Run a command as `main` does, silently; raises what it would show a trace of."""
    told = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(told):
        warnings.simplefilter("ignore")  # matplotlib's, of letters and limits
        with contextlib.redirect_stderr(told):
            status = command() or 0
    _expect(status in (0, 1, 2), f"status {status}")
    written = [told.getvalue()]
    if (page := run / "report.html").exists():
        written.append(page.read_text(encoding="utf-8", errors="surrogateescape"))
    _expect(
        not secret or all(secret not in text for text in written), "a file beside the run is told"
    )


def _mutated_run_file(copy: Path, names: list[str], rng: random.Random) -> tuple[str, bytes]:
    """Change a file of a run; return its name and what it holds now."""
    file = copy / rng.choice(names)
    data = file.read_bytes()
    file.unlink()
    kind = rng.randrange(12)
    if kind == 0:
        file.symlink_to(copy.parent / "secret.png")
        return file.name, b"a link"
    if kind == 1:
        os.mkfifo(file)
        return file.name, b"a pipe"
    if file.suffix == ".json" and kind < 10:
        value = json.loads(data)
        for _ in range(rng.choice((1, 1, 3))):
            _change_value(value, rng)
        data = json.dumps(value).encode("utf-8", "surrogatepass")
    else:
        numbers = np.random.default_rng(rng.randrange(2**32))
        data = mutate(data, numbers, _WORDS, data, most=4)
    file.write_bytes(data)
    return file.name, data


def _change_value(value: Any, rng: random.Random) -> None:
    """Change, remove or repeat something at a random depth of a value of JSON."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        if not len(keys):
            return
        key = rng.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
            value = value[key]
            continue
        kind = rng.randrange(4)
        if kind == 0:
            del value[key]
        elif kind == 1 and isinstance(value, list):
            value.extend(value * 2)
        else:
            value[key] = rng.choice(STRANGE)
        return


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def run(
    images: int = 0,
    texts: int = 0,
    seed: int = 0,
    failures: Path = Path("fuzz-failures"),
    requests: int = 0,
    runs: tuple[int, Path | None, Path | None] = (0, None, None),
) -> dict:
    """Fuzz, and return counts, seconds and failures; `runs`: how many, which run, its data."""
    outcomes, seconds = Outcomes(failures), {}
    on_runs = partial(fuzz_runs, run=runs[1], data=runs[2])
    counts = {"images": images, "texts": texts, "requests": requests, "runs": runs[0]}
    kinds = zip(counts, (fuzz_images, fuzz_texts, fuzz_requests, on_runs), strict=True)
    for name, fuzz in kinds:
        started = time.monotonic()
        fuzz(counts[name], seed, outcomes) if counts[name] else None
        seconds[name] = round(time.monotonic() - started, 1)
    return {
        "inputs": counts,
        "seed": seed,
        "seconds": seconds,
        "counts": dict(sorted(outcomes.counts.items())),
        "failures": outcomes.failures,
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--runs", type=int, default=100, help="of `--run`")
    parser.add_argument("--run", type=Path, help="a run directory; without one none is mutated")
    parser.add_argument("--data", type=Path, help="the folder of images that `--run` trained on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file of the counts")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    args = parser.parse_args()
    runs = (args.runs if args.run else 0, args.run, args.data)
    result = run(args.images, args.texts, args.seed, args.failures, args.requests, runs)
    table = Table("outcome", "inputs", title=f"{result['inputs']}, seconds {result['seconds']}")
    for outcome, count in result["counts"].items():
        table.add_row(outcome, f"{count:,}")
    Console().print(table)
    for failure in result["failures"][:20]:
        print(failure)
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
