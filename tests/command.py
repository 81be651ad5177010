"""The command, run in the process of the tests."""

from typing import NamedTuple

import pytest
from typer.testing import CliRunner


class Told(NamedTuple):
    """What a command wrote; of one that was refused, the text of the error is its stderr."""

    stdout: str
    stderr: str


def kerastl(*arguments, status=0, stdin=None) -> Told:
    """Run the command as `main` does, and check its exit status.

    TensorFlow runs already here: determinism, which a command asks for, would leak into the tests
    after it.
    """
    from kerastl.cli import app
    from kerastl.errors import KerastlError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
        found = CliRunner().invoke(app.app, [str(argument) for argument in arguments], input=stdin)
    error = found.exception
    if isinstance(error, KerastlError):
        assert error.exit_status == status, error
        return Told(found.stdout, str(error))
    assert found.exit_code == status, (found.output, error)
    return Told(found.stdout, found.stderr)
