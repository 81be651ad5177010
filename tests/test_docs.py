"""The README and the pages of the site speak of what there is."""

import ast
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import kerastl
from kerastl.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def each(language):
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language))
    ]


@pytest.mark.parametrize("block", each("python"))
def test_python_calls_what_there_is_with_arguments_that_it_takes(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "kerastl":
            assert node.attr in kerastl.__all__
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("kerastl."):
            function = getattr(kerastl, ast.unparse(node.func).split(".")[1])
            given = [keyword.arg for keyword in node.keywords if keyword.arg]
            taken = inspect.signature(function).parameters
            if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
                assert set(given) <= set(taken)


@pytest.mark.parametrize("block", each("(?:sh|bash|console)"))
def test_commands_and_options_are_there(block):
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "kerastl" not in words:
            continue
        name, *rest = words[words.index("kerastl") + 1 :]
        if name in ("--help", "--version"):
            continue
        command = COMMANDS[name]
        known = {option for each in command.params for option in each.opts + each.secondary_opts}
        assert {word for word in rest if word.startswith("--")} <= known | {"--help"}


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_fits_80_columns_without_a_cut_word(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [] if name is None else [name]
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert "…" not in result.output
    for option in COMMANDS[name].params if name else []:
        shown = [word for word in (*option.opts, *option.secondary_opts) if word[0] == "-"]
        assert all(word in result.output for word in [*shown, option.metavar or ""])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_reference_lists_the_public_names():
    listed = re.findall(r"::: kerastl\.(\w+)", (ROOT / "docs" / "reference.md").read_text())
    assert sorted(listed) == sorted(set(kerastl.__all__) - {"__version__"} - set(_errors()))


def _errors():
    return [name for name in kerastl.__all__ if inspect.ismodule(getattr(kerastl, name, None))]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_each_deliberate_fault_has_a_place_to_be_put():
    path = ROOT / "tools" / "mutants.py"
    spec = importlib.util.spec_from_file_location("mutants", path)
    sys.modules["mutants"] = mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    for mutant in mutants.MUTANTS.values():
        for file, text, _ in mutant.edits:
            assert (ROOT / file).read_text().count(text) == 1, (file, text)
    table = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(f"| {mutant.fault} |" in table for mutant in mutants.MUTANTS.values())
    for file, test in re.findall(r"`(tests/[^`]+?)::(\w+)", table):
        assert f"def {test}(" in (ROOT / file).read_text()
