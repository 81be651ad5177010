import json

import pytest
import typer
from typer.testing import CliRunner

from kerastl.cli.chain import chain
from kerastl.cli.train import train
from kerastl.errors import DataError
from tests.faults.kills import write_images


@pytest.fixture(autouse=True)
def _keep_tensorflow_as_it_is(monkeypatch):
    """In these tests TensorFlow runs already, and determinism would leak into the others."""
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)


def command(what, *arguments):
    app = typer.Typer()
    app.command()(what)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("chain")
    for number, name in enumerate(("first", "second")):
        write_images(root / name, seed=number)
    steps = "".join(
        f'[[step]]\nname = "{name}"\ndata = "{root / name}"\nepochs = 2\n{more}'
        for name, more in (("first", ""), ("second", 'scenario = "large_similar"\n'))
    )
    (root / "chain.toml").write_text('weights = "embedded"\n' + steps)
    return root


@pytest.fixture(scope="module")
def done(folder):
    output = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tensorflow.config.experimental.enable_op_determinism", lambda: None)
        result = command(chain, folder / "chain.toml", "--output", output, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return output, json.loads(result.stdout), result.stderr


def test_a_chain_is_a_run_a_step_and_tells_what_each_brought(done):
    output, found, told = done
    assert json.loads((output / "chain.json").read_text()) == found
    assert [step["name"] for step in found["steps"]] == ["first", "second"]
    assert [step["recipe"] for step in found["steps"]] == ["large_different", "large_similar"]
    assert [arm["name"] for arm in found["arms"]] == ["straight", "after first"]
    straight, after = found["arms"]
    assert found["same_budget"]
    assert straight["num_trained"] == after["num_trained"] == found["steps"][0]["num_trained"] * 2
    assert (straight["most_epochs"], after["most_epochs"]) == (4, 2)
    assert 0 < after["epochs"] <= 2
    assert after["epochs"] <= straight["epochs"] <= 4
    assert found["brought"][0]["step"] == "first"
    assert found["brought"][0]["difference"] == found["paid"]["difference"]
    assert "Step 2 of 2, second" in told
    unmoved = not found["steps"][0]["moved"]
    assert bool(found["warnings"]) == unmoved
    assert ("left the backbone as it was" in told) == unmoved


def test_the_lineage_stands_in_the_recipe_and_in_the_report(done):
    output, _, _ = done
    first = json.loads((output / "1-first" / "recipe.json").read_text())
    second = json.loads((output / "2-second" / "recipe.json").read_text())
    assert first["lineage"] == []
    assert [step["model"] for step in second["lineage"]] == [str(output / "1-first")]
    assert second["lineage"][0]["recipe"] == first["recipe"]
    assert second["recipe"]["weights"] == "model"
    page = (output / "2-second" / "report.html").read_text()
    for text in ("Where its backbone comes from", "What each step brought", "after first",
                 second["lineage"][0]["sha256"][:12]):  # fmt: skip
        assert text in page
    assert "Where its backbone comes from" not in (output / "1-first" / "report.html").read_text()


def test_a_finished_chain_says_so_and_another_one_is_refused(done, folder):
    output, found, _ = done
    again = command(chain, folder / "chain.toml", "--output", output, "--resume", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout) == found
    assert "is finished" in again.stderr
    tables = command(chain, folder / "chain.toml", "--output", output, "--resume").stdout
    assert "straight" in tables
    refused = command(chain, folder / "chain.toml", "--output", output)
    assert isinstance(refused.exception, DataError)


def test_a_chain_begun_otherwise_is_refused(folder, tmp_path):
    from kerastl.cli.unfinished import begin
    from kerastl.training.chain import read_chain

    begin(tmp_path, {**read_chain(folder / "chain.toml").to_dict(), "compare": False}, {})
    found = command(chain, folder / "chain.toml", "--output", tmp_path, "--resume").exception
    assert "its compare is false, not true" in str(found)


def test_train_goes_on_from_an_earlier_run(done, folder, tmp_path):
    output, _, _ = done
    how = [folder / "second", "--backbone", output / "1-first", "--scenario", "small_similar"]
    result = command(train, *how, "--output", tmp_path / "run", "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    metrics = json.loads(result.stdout)
    assert metrics["recipe"]["backbone"] == str(output / "1-first")
    assert metrics["recipe"]["weights"] == "model"
    wrong = command(train, folder / "second", "--backbone", folder / "none").exception
    assert "no earlier model" in str(wrong)
