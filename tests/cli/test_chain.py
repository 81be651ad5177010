import json

import pytest

from kerastl.runs.chain_file import read_chain
from kerastl.runs.run_lock import write_plan
from tests.command import kerastl
from tests.faults.kills import write_images


@pytest.fixture(scope="session")
def chained(finished_run, run_once):
    """A folder with `chain.toml`, what it names, and its `run`, without exports; and told."""

    def prepare(folder):
        for number, name in enumerate(("first", "second")):
            write_images(folder / name, seed=number)
        steps = "".join(
            f'[[step]]\nname = "{name}"\ndata = "{folder / name}"\nepochs = 2\n{more}'
            for name, more in (("first", ""), ("second", 'scenario = "large_similar"\n'))
        )
        (folder / "chain.toml").write_text(f'backbone = "{finished_run.backbone}"\n{steps}')
        return ["chain", folder / "chain.toml", "--output", folder / "run", "--json"]

    return run_once("chained", prepare, exports=False)


@pytest.fixture
def folder(chained):
    return chained[0]


@pytest.fixture
def done(chained):
    """The directory, what it says, and what was told meanwhile."""
    folder, told = chained
    return folder / "run", json.loads(told.stdout), told.stderr


@pytest.mark.slow
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
    assert after["epochs"] <= 2
    assert after["epochs"] <= straight["epochs"] <= 4
    assert found["brought"][0]["step"] == "first"
    assert found["brought"][0]["difference"] == found["paid"]["difference"]
    assert "Step 2 of 2, second" in told
    unmoved = not found["steps"][0]["moved"]
    assert bool(found["warnings"]) == unmoved
    assert ("did not change the backbone" in told) == unmoved


@pytest.mark.slow
def test_the_lineage_stands_in_the_recipe_and_in_the_report(done, finished_run):
    output, _, _ = done
    first = json.loads((output / "1-first" / "recipe.json").read_text())
    second = json.loads((output / "2-second" / "recipe.json").read_text())
    models = [str(finished_run.backbone), str(output / "1-first")]
    assert [step["model"] for step in first["lineage"]] == models[:1]
    assert [step["model"] for step in second["lineage"]] == models
    assert second["lineage"][1]["recipe"] == first["recipe"]
    assert second["recipe"]["weights"] == "model"
    page = (output / "2-second" / "report.html").read_text()
    for text in ("Lineage of the backbone", "Effect of each step", "after first",
                 *(step["sha256"][:12] for step in second["lineage"])):  # fmt: skip
        assert text in page
    page = (output / "1-first" / "report.html").read_text()
    assert "Effect of each step" not in page


@pytest.mark.slow
def test_a_finished_chain_says_so_and_another_one_is_refused(done, folder):
    output, found, _ = done
    again = kerastl("chain", folder / "chain.toml", "--output", output, "--resume", "--json")
    assert json.loads(again.stdout) == found
    assert "is finished" in again.stderr
    tables = kerastl("chain", folder / "chain.toml", "--output", output, "--resume")
    assert "straight" in tables.stdout
    refused = kerastl("chain", folder / "chain.toml", "--output", output, status=2)
    assert "contains files already" in refused.stderr


@pytest.mark.slow
def test_a_chain_begun_otherwise_is_refused(folder, tmp_path):
    write_plan(tmp_path, {**read_chain(folder / "chain.toml").to_dict(), "compare": False}, {})
    found = kerastl("chain", folder / "chain.toml", "--output", tmp_path, "--resume", status=2)
    assert "its compare is false, not true" in found.stderr


@pytest.mark.slow
def test_train_goes_on_from_an_earlier_run(done, folder, tmp_path, without_exports):
    output, _, _ = done
    stdout, _ = kerastl(
        "train", folder / "second", "--backbone", output / "1-first", "--scenario",
        "small_similar", "--output", tmp_path / "run", "--json",
    )  # fmt: skip
    metrics = json.loads(stdout)
    assert metrics["recipe"]["backbone"] == str(output / "1-first")
    assert metrics["recipe"]["weights"] == "model"
    wrong = kerastl("train", folder / "second", "--backbone", folder / "none", status=2)
    assert "no earlier model" in wrong.stderr
