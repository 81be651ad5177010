import pytest

from kerastl.errors import ArgumentError, DataError
from kerastl.results.run_files import read_recipe
from kerastl.runs import training
from kerastl.runs.chain import run_chain
from kerastl.runs.chain_file import Chain, ChainStep, read_chain
from kerastl.runs.run import Run


@pytest.mark.slow
def test_a_chain_takes_the_recipe_of_a_run(finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "export_model", lambda *_, **__: None)
    step = (
        '[[step]]\nname = "{}"\n'
        f'data = "{finished_run.images}"\nrecipe = "{finished_run.directory}"\n'
    )
    file = tmp_path / "chain.toml"
    file.write_text(step.format("one") + step.format("two"))  # the recipe names the backbone
    chain, output = read_chain(file), tmp_path / "chain"
    tracked = []
    monkeypatch.setattr("kerastl.runs.chain.load_tracker", tracked.append)
    monkeypatch.setattr(Run, "track", lambda run, name: tracked.append((run.directory, name)))
    run = run_chain(chain, output, compare=False, track="wandb")
    assert tracked == ["wandb", (output / "1-one", "wandb"), (output / "2-two", "wandb")]
    assert run.directory == output / "2-two"
    first = read_recipe(output / "1-one")
    assert (first.backbone, first.weights) == (str(finished_run.backbone), "model")
    assert run.recipe.name == finished_run.metrics["recipe"]["name"]
    assert run.recipe.backbone == str(output / "1-one")
    assert [each["name"] for each in run.files.chain["steps"]] == ["one", "two"]
    capsys.readouterr()
    assert run_chain(chain, output, compare=False, resume=True).directory == run.directory
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(DataError, match="contains files already"):
        run_chain(chain, output, compare=False)


def test_a_chain_to_objects_has_no_comparison(tmp_path):
    steps = (ChainStep("one", "a/"), ChainStep("two", "b/", task="detection"))
    with pytest.raises(ArgumentError, match="--no-compare"):
        run_chain(Chain(steps), tmp_path / "chain")
    assert not (tmp_path / "chain").exists()
