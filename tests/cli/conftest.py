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


@pytest.fixture
def without_training(monkeypatch):
    """Runs end where training would begin; what `train` prints of them is the recipe.

    For tests of what is decided before. `diagnosis.json` is kept, as runs do.
    """

    def end(data, start, output, *, diagnosis=None, source, epochs, strategy, checkpoints, **build):
        from kerastl.cli.runs import model_and_recipe
        from kerastl.results.run_directory import write_json

        model, recipe = model_and_recipe(data, start, build)
        assert list(model.input_shape[1:3]) == list(recipe.image_size or model.input_shape[1:3])
        write_json(output / "diagnosis.json", diagnosis)
        return {"recipe": recipe.to_dict(), "validation": None, "test": None}

    monkeypatch.setattr("kerastl.cli.runs.run_recipe", end)


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
