"""What the benchmarks share: arguments, images, meters, rounds, tables and JSON.

Nothing here imports TensorFlow: a process that measures its children must stay small and quick.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
SHARED = "KERASTL_TEST_SHARED"
WEIGHTS = {
    "MobileNetV2": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.refolded.h5",
    "MobileNetV2(alpha=0.35)": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5",
}
_PACKAGES = ("kerastl", "keras", "tensorflow", "numpy", "openvino")
_PHOTOGRAPHS = ("cats_vs_dogs_subset", "hymenoptera")


def arguments(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of what every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes; writes no result here")
    parser.add_argument("--rounds", type=int, help=f"how often each arm runs (default: {rounds})")
    parser.add_argument("--output", type=Path, help="the JSON (default: benchmarks/results/)")
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path(os.environ.get(SHARED, ROOT.parent / "shared")),
        help=f"folder with data/*.zip and weights/*.h5 (default: {SHARED}, else ../shared)",
    )
    parser.set_defaults(default_rounds=rounds)
    return parser


def num_rounds(args: argparse.Namespace) -> int:
    """Return the rounds that were asked for; one with `--smoke`."""
    return int(args.rounds or (1 if args.smoke else args.default_rounds))


def stop(message: str) -> NoReturn:
    """Say what is missing, and exit with 2."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def shared_file(args: argparse.Namespace, name: str) -> Path:
    """Return a file of the shared folder, or stop."""
    path: Path = args.shared / name
    if not path.is_file():
        stop(f"This benchmark needs {path}. Name the folder with --shared, or {SHARED}.")
    return path


def weights_of(args: argparse.Namespace, backbone: str) -> str:
    """Return the file of a backbone's weights; "random" where none is published to us."""
    name = WEIGHTS.get(backbone)
    return "random" if name is None else str(shared_file(args, f"weights/{name}"))


def image_files(args: argparse.Namespace, name: str, folder: Path) -> list[tuple[Path, str]]:
    """Extract an archive, and return its images with their classes, in the order of names."""
    with zipfile.ZipFile(shared_file(args, f"data/{name}.zip")) as archive:
        archive.extractall(folder)
    files = sorted(path for path in (folder / name).glob("*/*/*") if path.is_file())
    return [(path, path.parent.name) for path in files]


def photographs(
    args: argparse.Namespace, folder: Path, num_train: int, num_validation: int
) -> Path:
    """Lay out photographs of ants, bees, cats and dogs as `train/`, `val/` and `test/`.

    Both archives hold 1,197 together, about 400 x 370 pixels. `test/` holds one image a class:
    kerastl takes `val/` for the test set where it is alone.
    """
    raw = folder / "raw"
    found = [pair for name in _PHOTOGRAPHS for pair in image_files(args, name, raw)]
    random.Random(0).shuffle(found)
    if num_train + num_validation > len(found):
        stop(f"There are {len(found)} photographs. Received: {num_train} + {num_validation}.")
    chosen = found[: num_train + num_validation]
    first = {label: (path, label) for path, label in reversed(found)}
    parts = {"train": chosen[:num_train], "val": chosen[num_train:], "test": list(first.values())}
    for part, pairs in parts.items():
        for number, (path, label) in enumerate(pairs):
            target = folder / "images" / part / label / f"{number:05}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.rmtree(raw)
    return folder / "images"


@dataclass(frozen=True)
class Seconds:
    """Wall and CPU seconds; CPU seconds are of this process and of those it has waited for."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        """Return the clocks as they stand."""
        uses = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(time.perf_counter(), sum(use.ru_utime + use.ru_stime for use in uses))

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)

    def to_dict(self) -> dict[str, float]:
        """Return both, for JSON."""
        return {"wall": round(self.wall, 4), "cpu": round(self.cpu, 4)}


def timed(function: Callable[[], Any]) -> dict[str, float]:
    """Run a function, and return its wall and CPU seconds."""
    start = Seconds.now()
    function()
    return (Seconds.now() - start).to_dict()


def peak_megabytes() -> float:
    """Return the most memory that this process has had (a child begins with its parent's)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def interleaved(arms: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """Return `(round, arm)`, every other round in the opposite order."""
    return [
        (index, arm)
        for index in range(rounds)
        for arm in (arms if index % 2 == 0 else list(reversed(arms)))
    ]


def median(rows: Sequence[dict[str, Any]], key: str) -> float:
    """Return the median of one value over rounds."""
    return statistics.median(row[key] for row in rows)


def median_ratio(
    above: Sequence[dict[str, Any]], below: Sequence[dict[str, Any]], key: str
) -> float:
    """Return the median over rounds of the ratio of two arms that ran in the same round."""
    return statistics.median(a[key] / max(b[key], 1e-9) for a, b in zip(above, below, strict=True))


def run_child(script: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run a script of this kind in a fresh process with `--child`, and return what it reports."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            script,
            "--child",
            json.dumps({**options, "report": str(report)}),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not report.is_file():
            print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
            raise SystemExit(f"{Path(script).name} failed on {options}")
        result: dict[str, Any] = json.loads(report.read_text())
        return result


def child_main(measure: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Do what `run_child` asked this process to do; False when it was started by hand."""
    if len(sys.argv) != 3 or sys.argv[1] != "--child":
        return False
    options = json.loads(sys.argv[2])
    Path(options["report"]).write_text(json.dumps(measure(options)))
    return True


def hardware() -> dict[str, Any]:
    """Return what this machine is, as far as it matters here."""
    cpu, cpuinfo = platform.processor(), Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].split(":", 1)[1].strip() if lines else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = os.getloadavg()[0]
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gb": round(memory / 1e9, 1),
        "system": platform.platform(),
        "load_average_at_start": round(load, 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that do the work."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@dataclass(frozen=True)
class Goal:
    """What a benchmark wants to see, and what it saw."""

    name: str
    seen: float
    wanted: float
    at_least: bool = True

    @property
    def is_met(self) -> bool:
        """Whether it was reached."""
        return self.seen >= self.wanted if self.at_least else self.seen <= self.wanted

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        sign = ">=" if self.at_least else "<="
        seen = round(self.seen, 4)
        return {
            "name": self.name,
            "seen": seen,
            "goal": f"{sign} {self.wanted:g}",
            "met": self.is_met,
        }


class Report:
    """Gathers what one benchmark found; prints it and writes it."""

    def __init__(self, script: str, args: argparse.Namespace):
        self.name, self.args = Path(script).stem, args
        self.console = Console(width=max(150, shutil.get_terminal_size().columns))
        self._start = Seconds.now()
        self._about = {"hardware": hardware(), "versions": versions()}
        self._tables: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}

    def table(self, title: str, rows: Sequence[dict[str, Any]]) -> None:
        """Print rows that have the same names, and keep them."""
        self._tables[title] = list(rows)
        table = Table(title=title)
        for name in rows[0]:
            table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
        for row in rows:
            table.add_row(*(_text(value) for value in row.values()))
        self.console.print(table)

    def keep(self, **values: Any) -> None:
        """Keep values for the JSON alone."""
        self._extra |= values

    def finish(self, goals: Sequence[Goal] = ()) -> None:
        """Print the goals and write the JSON. A goal that is missed is a result, not an error."""
        if goals and not self.args.smoke:
            self.table("Goals", [goal.to_dict() for goal in goals])
        file = self._file()
        file.parent.mkdir(parents=True, exist_ok=True)
        shown = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items()}
        for of_this_machine in ("shared", "output"):
            shown.pop(of_this_machine)
        content = {
            "benchmark": self.name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "smoke": self.args.smoke,
            **self._about,
            "arguments": shown,
            "goals": [goal.to_dict() for goal in goals],
            "tables": self._tables,
            **self._extra,
            "took": (Seconds.now() - self._start).to_dict(),
        }
        file.write_text(json.dumps(content, indent=1) + "\n")
        print(f"{self._about['hardware']['cpu']}, {self._about['hardware']['cores']} cores")
        print(f"Written: {file}")

    def _file(self) -> Path:
        if self.args.output:
            return Path(self.args.output)
        if self.args.smoke:
            return Path(tempfile.mkdtemp(prefix="kerastl-benchmark-")) / f"{self.name}.json"
        return RESULTS / f"{self.name}.json"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if abs(value) < 0.1:
            return f"{value:.2g}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
