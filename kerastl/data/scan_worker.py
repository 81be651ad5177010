"""The parent's side of the child process that examines files."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from kerastl.data.file_report import FileReport
from kerastl.errors import BadFile, KerastlError

PATIENCE = 120.0
"""Seconds after which a request is given up; the largest image that is decoded takes two."""
_START_PATIENCE = 300.0
COMMAND = (sys.executable, "-P", "-m", "kerastl.data.scan_child")
"""`-P`: a file in the user's folder must not pass for a module."""


class WorkerDiedError(Exception):
    """The child ended before it answered; the text says how."""


class Worker:
    """One child, started when it is needed and again after it has ended."""

    def __init__(self, command: Sequence[str] = COMMAND, patience: float = PATIENCE):
        self._command, self._patience = command, patience
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._rest = b""

    def _start(self) -> "subprocess.Popen[bytes]":
        """Start the child unless it runs, and wait until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        self._rest, self._errors = b"", tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603  # ourselves, without a shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
        )
        if self._read_line(self._process, _START_PATIENCE) != b"ready\n":
            raise KerastlError(
                f"The process that decodes images cannot start (exit {self._process.wait()}). "
                f"{self._said()}"
            )
        return self._process

    def examine(self, paths: Sequence[str], asked: Sequence[Any]) -> list[FileReport | BadFile]:
        """Return the report on each file; `asked` are the fields of an `examine.Asked`.

        Raises:
            WorkerDiedError: The child crashed, was killed, or did not answer in time.
            KerastlError: The child cannot start.
        """
        request = {"folder": os.getcwd(), "paths": list(paths), "asked": asked}
        line = json.dumps(request).encode() + b"\n"
        try:
            # One that had nothing to do for long goes, and another one is asked.
            answer = self._ask(line) or self._ask(line)
        except BaseException:  # an answer that nobody reads would pass for that to the next request
            self.close()
            raise
        if answer is None or len(answer) != len(paths):
            raise KerastlError(f"The process that decodes images did not answer. {self._said()}")
        return [
            BadFile(*values)
            if len(values) == len(BadFile._fields)
            else FileReport(*values)._replace(remarks=tuple(values[6]))
            for values in answer
        ]

    def close(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, self._errors):
                if stream is not None:
                    stream.close()

    def _ask(self, request: bytes) -> Any:
        """Return the answer of the child, or None if it had already ended."""
        process = self._start()
        pipe = cast("IO[bytes]", process.stdin)
        try:
            pipe.write(request)
            pipe.flush()
        except BrokenPipeError:
            line = b""
        else:
            line = self._read_line(process, self._patience)
        if line:
            return json.loads(line)
        if (status := process.wait()) != 0:
            raise WorkerDiedError(_how_it_ended(status))
        return None

    def _read_line(self, process: "subprocess.Popen[bytes]", patience: float) -> bytes:
        """Return the next line, or nothing when the child has ended."""
        descriptor = cast("IO[bytes]", process.stdout).fileno()
        deadline = time.monotonic() + patience
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerDiedError(f"it was not decoded within {patience:g} seconds")
                data = os.read(descriptor, 1 << 16)
                if not data:
                    return b""
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line + b"\n"

    def _said(self) -> str:
        """Return the end of what the child wrote on stderr."""
        if self._errors is None or self._errors.closed:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-2000:]


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"the decoder ended with status {status}"
    if -status == signal.SIGKILL:
        return "the decoder was killed (SIGKILL), probably because the memory is full"
    return f"the decoder crashed ({signal.Signals(-status).name})"


def _environment() -> dict[str, str]:
    """The child must find this package, leave the accelerators alone, and be quiet."""
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**os.environ, **quiet, "PYTHONPATH": path}
