"""The README and the pages of the site speak of what there is."""

import collections
import importlib.util
import inspect
import re
import shlex
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import kerastl
from kerastl._task import task_names
from kerastl.cli.app import app
from kerastl.results.run_files import RunFiles
from tests.command import kerastl as kerastl_command

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


@pytest.fixture(scope="module")
def home(finished_run, tmp_path_factory):
    """A folder with all that the pages name."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(finished_run.images, home / "photos")
    shutil.copytree(finished_run.directory, home / "runs" / "1")
    shutil.copy(finished_run.directory / "model.keras", home / "photos.keras")
    shutil.copy(finished_run.images / "test" / "dark" / "0.png", home / "picture.jpg")
    rows = [f"photos/train/dark/{n}.png,{('sea', 'sky', 'sea|sky')[n % 3]},{n}" for n in range(24)]
    (home / "table.csv").write_text("\n".join(["path,labels,target", *rows]))
    for name in ("scans", "more_photos"):
        shutil.copytree(home / "photos", home / name)
    shutil.copytree(home / "photos" / "test" / "dark", home / "folder")
    (home / "images").mkdir()
    for path in (home / "folder").iterdir():
        shutil.copy(path, home / "images" / f"{path.stem}.jpg")
    breeds = [
        f"{path.stem},{('husky', 'pug')[n % 2]}"
        for n, path in enumerate((home / "folder").iterdir())
    ]
    (home / "dogs.csv").write_text("\n".join(["id,breed", *breeds]))
    (home / "steps.toml").write_text(STEPS.format(finished_run.backbone))
    return home


def running(page):
    """Return the Python blocks of a page that run here."""
    skipped = r"<!-- not run: [^>]+-->\n```python\n.*?```"
    text = re.sub(skipped, "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL) if page.name != "data.md" else []


@pytest.mark.slow
@pytest.mark.parametrize("page", [*filter(running, PAGES)], ids=lambda page: page.name)
def test_python_blocks_run(page, home, finished_run, tmp_path, monkeypatch):
    """The blocks of a page run in their order, with a tiny network in place of Keras'.

    Those below a comment `<!-- not run: WHY -->` do not, and `tests/data/test_docs.py` runs those
    of `data.md`.
    """
    monkeypatch.chdir(shutil.copytree(home, tmp_path / "home"))
    data = kerastl.load_data("photos/")
    model = kerastl.build_transfer_model(str(finished_run.backbone), 2)
    names = {"kerastl": kerastl, "keras": keras, "np": np, "data": data, "model": model}
    for block in running(page):
        block = re.sub(r'"(MobileNetV2|ResNet50)"', repr(str(finished_run.backbone)), block)
        exec(block.replace("(224, 224)", "(32, 32)"), names)


NOT_RUN = {
    "serve": "it waits for requests: tests/serving/test_serve.py",
    "multi_worker": "it needs several machines: tests/training/test_multi_worker.py",
    "--workers": "it starts processes: tests/training/test_search_kills.py",
    "/shared/": "it needs a folder of several machines",
    "--track": "it needs a tracker: tests/runs/test_trackers.py",
    "boxes.json": "it needs boxes: tests/tasks/test_detection.py",
    "hymenoptera/": "it needs these images: benchmarks/accuracy.py",
}
"""What commands of the pages do not run here, and why."""

STEPS = """backbone = "{}"
[[step]]
name = "first"
data = "photos/"
epochs = 1
[[step]]
name = "second"
data = "photos/"
"""


def commands_of(page):
    lines = [
        line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()
    ]
    return [
        line for line in lines
        if line.startswith("kerastl ") and not any(f" {word}" in line for word in NOT_RUN)
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", [*filter(commands_of, PAGES)], ids=lambda page: page.name)
def test_commands_run(page, home, finished_run, tmp_path, monkeypatch):
    """The commands of a page run in their order, on tiny images and a tiny network."""
    monkeypatch.chdir(shutil.copytree(home, tmp_path / "home"))
    tiny = str(finished_run.backbone)
    for line in commands_of(page):
        words = shlex.split(line, comments=True)[1:]
        if words[0] in ("train", "search"):
            words += ["--epochs", "1", *([] if "--backbone" in words else ["--backbone", tiny])]
        words += {"search": ["--budget", "5"], "train": ["--no-page"]}.get(words[0], [])
        other = shutil.copy(tiny, tmp_path / "other.keras")
        fakes = {"MobileNetV2": tiny, "VGG16": tiny, "ResNet50": str(other), "fc2": "relu_3"}
        kerastl_command(*(fakes.get(word, word) for word in words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_are_there(page):
    lines = [
        line
        for block in blocks(page, "(?:sh|bash|console)")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    lines += [span.replace("\n", " ") for span in re.findall(r"`(kerastl [^`]+)`", prose)]
    for line in lines:
        words = shlex.split(line, comments=True)
        if "kerastl" not in words:
            continue
        name, *rest = words[words.index("kerastl") + 1 :]
        if name in ("--help", "--version"):
            continue
        command = COMMANDS[name]
        known = {option for each in command.params for option in each.opts + each.secondary_opts}
        assert {word for word in rest if word.startswith("--")} <= known | {"--help"}, line


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
    if name:
        common, *rest = re.split("╭─ Advanced", result.output)
        assert common.count("\n") <= 45  # a screen
        assert not any("╭─" in panel for panel in rest)  # which come last
        assert f"Example: kerastl {name}" in common


def test_an_option_has_the_same_forms_in_each_command():
    found = collections.defaultdict(set)
    for command in COMMANDS.values():
        for option in command.params:
            if option.param_type_name == "option":
                found[option.opts[0]].add((tuple(option.opts), tuple(option.secondary_opts)))
    # `embed --page FILE` writes a page of embeddings, `train --page` that of the run.
    assert {name for name, forms in found.items() if len(forms) > 1} == {"--page"}


def test_the_shell_completes_choices():
    (task,) = (one for one in COMMANDS["train"].params if one.name == "task")
    context = COMMANDS["train"].make_context("train", ["photos"])
    assert sorted(one.value for one in task.shell_complete(context, "")) == task_names()
    (option,) = (one for one in COMMANDS["train"].params if one.name == "scenario")
    assert [one.value for one in option.shell_complete(context, "small_")] == [
        "small_similar",
        "small_different",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        target = re.sub(r"^tutorials/(\w+)\.md$", r"../examples/\1.py", target)
        is_made = target in ("commands.md", "measured.md")
        assert is_made or (page.parent / target).exists(), target


def test_the_reference_lists_the_public_names():
    listed = re.findall(r"::: kerastl\.(\w+)", (ROOT / "docs" / "reference.md").read_text())
    assert sorted(listed) == sorted(set(kerastl.__all__) - {"__version__"} - set(_errors()))


def _errors():
    return [name for name in kerastl.__all__ if inspect.ismodule(getattr(kerastl, name, None))]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def tool(name):
    """Import a script of `tools/`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_deliberate_fault_has_a_place_to_be_put():
    mutants = tool("mutants")
    for mutant in mutants.MUTANTS.values():
        for file, text, _ in mutant.edits:
            assert (ROOT / file).read_text().count(text) == 1, (file, text)
    table = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(f"| {mutant.fault} |" in table for mutant in mutants.MUTANTS.values())
    for file, test in re.findall(r"`(tests/[^`]+?)::(\w+)", table):
        assert f"def {test}(" in (ROOT / file).read_text()


def test_the_site_has_every_tutorial_and_every_command():
    pages = tool("docs_pages")
    scripts = {path.stem for path in (ROOT / "examples").glob("*.py") if "# %%" in path.read_text()}
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert set(pages.TUTORIALS) == scripts
    assert all(f"tutorials/{name}.md" in navigation for name in scripts)
    listed = pages.commands()
    for name, command in COMMANDS.items():
        _, found = listed.split(f"## `kerastl {name}`\n")
        for option in command.params:
            assert (option.metavar or option.opts[-1]) in found.split("\n## ")[0]
    assert "| set | network |" in pages.measured()


def test_the_site_names_the_files_of_a_run():
    page = (ROOT / "docs" / "files.md").read_text()
    names = [value for name, value in vars(RunFiles).items() if name.isupper()]
    assert [name for name in names if f"`{name}" not in page] == []
