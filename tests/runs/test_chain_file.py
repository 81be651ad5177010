import pytest

from kerastl.data.options import DataOptions
from kerastl.errors import ArgumentError, DataError
from kerastl.model.recipes import Phase, Recipe
from kerastl.runs.chain_file import images_trained_on, read_chain, with_budget

STEPS = """
[[step]]
name = "first"
data = "a"
epochs = 2
image_size = 64
options = { bit_depth = 12, label_column = ["a", "b"] }

[[step]]
name = "second"
data = "b"
scenario = "auto"
"""


def chain_of(folder, text):
    file = folder / "chain.toml"
    file.write_text(text)
    return read_chain(file)


def test_a_chain_file(tmp_path):
    chain = chain_of(tmp_path, 'backbone = "ResNet50"\nweights = "random"\nseed = 3\n' + STEPS)
    assert (chain.backbone, chain.weights, chain.seed) == ("ResNet50", "random", 3)
    assert [step.name for step in chain.steps] == ["first", "second"]
    assert chain.steps[0].epochs == 2
    assert chain.steps[0].options == DataOptions(bit_depth=12, label_column=("a", "b"))
    assert chain.steps[1].scenario == "auto"
    assert chain.to_dict()["steps"]["second"]["data"] == "b"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "needs two steps or more. Received: 0"),
        ('[[step]]\nname = "a"\ndata = "b"', "needs two steps or more. Received: 1"),
        ('[step]\nname = "a"', r"must be tables \[\[step\]\]. Received a table"),
        ('step = ["a"]', "A step must be a JSON object or a TOML table. Received: 'a'"),
        ('bakbone = "a"\n' + STEPS, "no field 'bakbone'. Did you mean 'backbone'"),
        ("seed = true\n" + STEPS, "`seed` must be an integer. Received: seed=True"),
        ("seed = -1\n" + STEPS, "seed"),
        ("weights = 3\n" + STEPS, "`weights` must be a string. Received: weights=3"),
        (STEPS + '[[step]]\nname = "third"', "A step needs data. Received"),
        (STEPS + '[[step]]\nname = "first"\ndata = "c"', "a different name"),
        (STEPS + '[[step]]\nname = "../up"\ndata = "c"', "letters, digits"),
        (STEPS + '[[step]]\nname = "c"\ndata = "c"\nscenario = "smal"', "scenario"),
        (STEPS + '[[step]]\nname = "c"\ndata = "c"\nepochs = 0', "epochs"),
        (STEPS + "options = { bit_dept = 9 }", "no field 'bit_dept'. Did you mean 'bit_depth'"),
        (STEPS + 'options = { resize = "fit" }', "`resize` must be one of"),
        (STEPS + '[[step]]\nname = "c"\ndata = "c"\nepoch = 1', "no field 'epoch'. Did you mean"),
        (
            STEPS + '[[step]]\nname = "c"\ndata = "c"\nscenario = "bit"\nrecipe = "r.json"',
            "has a scenario and a recipe",
        ),
    ],
)
def test_what_cannot_be_meant_is_told(tmp_path, text, told):
    with pytest.raises(ArgumentError, match=told):
        chain_of(tmp_path, text)


@pytest.mark.parametrize("text", ["[", "a = " + "[" * 5000, "\udcff"])
def test_what_is_no_chain_file_is_told(tmp_path, text):
    file = tmp_path / "chain.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="Cannot read the chain"):
        read_chain(file)
    with pytest.raises(DataError, match="Cannot read"):
        read_chain(tmp_path / "none.toml")


def test_budgets():
    probe = Phase("head", freeze_depth=4, method="probe")
    fine = Phase("fine_tune", freeze_depth=1, epochs=4, learning_rate=1e-3)
    recipe = Recipe("large_similar", (probe, fine))
    assert images_trained_on(recipe, 100) == 400
    assert images_trained_on(Recipe("small_similar", (probe,)), 100) == 0
    longer = with_budget(recipe, 2.6)
    assert [phase.epochs for phase in longer.phases] == [0, 10]
    assert with_budget(recipe, 0.01).phases[1].epochs == 1
    assert with_budget(recipe, 1.0) == recipe
