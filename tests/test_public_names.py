import ast
import subprocess
import sys
from pathlib import Path

import kerastl

STUB = Path(kerastl.__file__).with_suffix(".pyi")


def test_every_public_name_is_there():
    assert kerastl.__all__ == sorted(kerastl.__all__)
    for name in kerastl.__all__:
        assert callable(getattr(kerastl, name)), name
        assert getattr(kerastl, name).__doc__, name


def test_the_stub_has_every_name_once_and_as_its_own():
    imports = [node for node in ast.walk(ast.parse(STUB.read_text())) if hasattr(node, "names")]
    aliases = [alias for node in imports for alias in node.names]
    assert sorted(alias.name for alias in aliases) == kerastl.__all__
    assert all(alias.asname == alias.name for alias in aliases)  # so that checkers see it as public


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(kerastl, "no_such_name")
    assert set(dir(kerastl)) == {*kerastl.__all__, "__version__"}


def test_import_and_help_do_without_tensorflow():
    program = (
        "import sys, kerastl\n"
        "from typer.testing import CliRunner\n"
        "from kerastl.cli.app import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert 'numpy' not in sys.modules\n"
        "assert CliRunner().invoke(app, ['backbones', '--json']).exit_code == 0\n"
        "print([n for n in ('tensorflow', 'keras', 'sklearn', 'scipy') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
