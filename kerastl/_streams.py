"""Standard streams: closed ones, and what native code writes to stderr."""

import contextlib
import errno
import io
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def held_stderr(*, shown_if_failed: bool = False) -> Iterator[None]:
    """Keep what is written to stderr, past Python and all log levels.

    If the block fails, it may be shown.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            noise.seek(0)
            if shown_if_failed:
                sys.stderr.write(noise.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class _ClosedOutput(io.TextIOBase):
    """Standard output that the shell has closed; what writes there fails in words."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "it is closed")


def open_standard_streams() -> None:
    """Put something in the place of standard streams that are closed.

    Else the next files that are opened get their numbers, and what is printed goes there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or open(0, encoding="utf-8")
    sys.stdout = sys.stdout or _ClosedOutput()
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")
