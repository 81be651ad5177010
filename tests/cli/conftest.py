"""What the tests of commands share beside `finished_run`."""

import json

import pytest

from tests.command import Told, kerastl
from tests.conftest import once_for_all_workers


def _none(*_, **__):
    """Stands for `export_model`: writing and proving a SavedModel is half of what a run costs."""


@pytest.fixture
def without_exports(monkeypatch):
    """Runs that end here leave no SavedModel; for tests that say nothing of what is served."""
    monkeypatch.setattr("kerastl.runs.training.export_model", _none)


@pytest.fixture(scope="session")
def run_once(tmp_path_factory):
    """A function that runs a command once for all workers.

    It takes the name of a folder, and a function from that folder, in which files can be made
    first, to the arguments. It returns the folder and what the command told. With `cache=True` the
    store of activations is the folder `cache` in there.
    """

    def run(name, prepare, *, exports=True, cache=False):
        def make(folder):
            folder.mkdir()
            arguments = prepare(folder)
            with pytest.MonkeyPatch.context() as patch:
                if cache:
                    patch.setenv("KERASTL_CACHE_DIR", str(folder / "cache"))
                if not exports:
                    patch.setattr("kerastl.runs.training.export_model", _none)
                told = kerastl(*arguments)
            (folder / "told.json").write_text(json.dumps(told))

        folder = once_for_all_workers(tmp_path_factory, name, make)
        return folder, Told(*json.loads((folder / "told.json").read_text()))

    return run
