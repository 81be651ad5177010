"""What each test cost, by the worker that ran it: a line of JSON in the file KERASTL_TEST_COSTS.

`python -m tests.costs FILE` prints the total, the rooms and the most expensive tests.
"""

import json
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

NUM_TESTS = 20


def _cpu_seconds():
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Measure a test with the fixtures that are made for it, or end after it."""
    cpu, wall = _cpu_seconds(), time.monotonic()
    try:
        return (yield)
    finally:
        if file := os.environ.get("KERASTL_TEST_COSTS"):
            row = [item.nodeid, _cpu_seconds() - cpu, time.monotonic() - wall]
            with open(file, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")


def pytest_terminal_summary(terminalreporter):
    """Say what the whole session cost; its workers have ended by now."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        terminalreporter.write_line(f"{_cpu_seconds():.0f} CPU seconds in all")


def table(rows, title):
    """Return the total, the rooms and the most expensive tests as text."""
    rooms = Counter()
    for name, cpu, _ in rooms_of(rows):
        rooms[name] += cpu
    lines = [f"{title}: {len(rows)} tests, {sum(row[1] for row in rows):.0f} CPU seconds in tests"]
    lines += [f"  {room:<12} {cpu:7.1f} CPU s" for room, cpu in rooms.most_common()]
    lines += [f"the {NUM_TESTS} slowest:", "   CPU s  wall s  test"]
    for name, cpu, wall in sorted(rows, key=lambda row: -row[1])[:NUM_TESTS]:
        lines.append(f"  {cpu:6.1f}  {wall:6.1f}  {name}")
    return "\n".join(lines)


def rooms_of(rows):
    """Return the rows with the folder below `tests/` for a name."""
    for name, *costs in rows:
        parts = name.split("::")[0].split("/")
        yield parts[1] if len(parts) > 2 else "(top)", *costs


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        print(table([json.loads(line) for line in file.read_text().splitlines()], file.stem))  # noqa: T201
