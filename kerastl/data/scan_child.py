"""The child process that decodes files, so that a crash of a decoder affects only one file.

`python -m kerastl.data.scan_child` answers each line of JSON on stdin with one on stdout, says
`ready` first, and ends when stdin does or when nothing has come for a while.
"""

import json
import os
import select
import signal
import sys
from typing import Any

IDLE_SECONDS = 60
"""How long it waits for work: it holds some 400 MB, which training may need."""


def main() -> None:
    """Answer requests until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes stdin
    # What native libraries print must not get among the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        # Keras imports them wherever they are, which takes 1.2 of the 4 seconds of the start.
        sys.modules.update(dict.fromkeys(("sklearn", "matplotlib")))  # type: ignore[arg-type]
        from kerastl.data.examine import Asked, examine_files

        print("ready", file=answers, flush=True)
        while (request := _next_request()) is not None:
            os.chdir(request["folder"])  # which the parent may have changed since it started us
            reports = examine_files(request["paths"], Asked(*request["asked"]))
            # A FileReport is longer than a BadFile, so the lists need no other mark.
            print(json.dumps(reports), file=answers, flush=True)


def _next_request() -> dict[str, Any] | None:
    readable, _, _ = select.select([sys.stdin], [], [], IDLE_SECONDS)
    line = sys.stdin.readline() if readable else ""
    return json.loads(line) if line else None


if __name__ == "__main__":
    main()
