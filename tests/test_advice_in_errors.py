"""What an error proposes is accepted: the names in all of them, and the calls of a good sample."""

import ast
import dataclasses
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import typer

import kerastl
import kerastl.training.search
from kerastl._features import FEATURES
from kerastl.cli.app import app
from kerastl.frozen.runtime import open_runtime  # noqa: F401  # of an expression
from kerastl.model.recipes import PUBLISHED, SCENARIOS, make_recipe
from kerastl.runs.settings import choose_backbone  # noqa: F401  # of an expression
from kerastl.serving.formats import BY_NAME
from kerastl.training.fine_tune import checked_recipe as checked
from tests.training.small import SIZE, small_backbone, small_data

ROOT = Path(kerastl.__file__).parent
COMMANDS = typer.main.get_command(app).commands
OPTIONS = {
    name
    for one in COMMANDS.values()
    for option in one.params
    for name in (*option.opts, *option.secondary_opts)
}
EXTRAS = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
OF_OTHERS = {"next", "help", "repeat"}  # of Python and of tf.data


def texts():
    """All texts of the package but docstrings, with `{}` for what is filled in."""
    for path in sorted(ROOT.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", "{}") for part in node.values)
                yield path, "".join(part if isinstance(part, str) else "{}" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) not in docstrings:
                    yield path, node.value


def test_functions_commands_options_and_extras_that_are_named_are_there():
    for path, text in texts():
        where = f"{path}: {text}"
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help", "--data-binary"}
        assert options <= OPTIONS, where
        assert set(re.findall(r"`kerastl ([a-z]+)", text)) <= {*COMMANDS}, where
        assert {*re.findall(r"kerastl\[(\w+)\]", text)} <= {*EXTRAS["optional-dependencies"]}, where
        called = set(re.findall(r"`(?:kerastl\.)?(\w+)\(", text))
        assert called - OF_OTHERS <= {*kerastl.__all__}, where


@pytest.fixture(scope="module")
def data():
    return small_data(class_names=["a", "b", "c"])


@pytest.fixture(scope="module")
def model():
    return kerastl.build_transfer_model(small_backbone(), 3)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def flat():
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten()])


def two_outputs():
    inputs = keras.Input((SIZE, SIZE, 3))
    first = keras.layers.Conv2D(4, 3, 2)(inputs)
    return keras.Model(inputs, [first, keras.layers.ReLU()(first)])


def built(backbone, **how):
    return kerastl.build_transfer_model(backbone, 3, **how)


def in_h5(folder):
    small_backbone().save(folder / "model.h5")
    return folder / "model.h5"


def saved_anew(folder):
    keras.saving.load_model(folder / "model.h5", compile=False).save(folder / "model.keras")
    return folder / "model.keras"


def searched(name, data, model):
    asked = SimpleNamespace(data=data, seed=0, weights="random", backbone="MobileNetV2")
    return sys.modules["kerastl.training.search"]._pattern(asked, name, model)


PIXELS = np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3))
LABELS = np.arange(24) % 2
ROWS = np.stack([LABELS, 1 - LABELS, np.arange(24) % 3 == 0], 1)


def tf_data(pair):
    return tf.data.Dataset.from_tensor_slices(pair).batch(12)


def table(folder, header, row):
    for number in range(12):
        keras.utils.save_img(folder / f"{number}.png", PIXELS[number])
    rows = [row.format(number, "ab"[number % 2]) for number in range(12)]
    (folder / "table.csv").write_text("\n".join([header, *rows]))
    return folder / "table.csv"


def folders(folder):
    for number, pixels in enumerate(PIXELS):
        inner = folder / ("cats", "dogs")[number % 2] / ("indoor", "outdoor")[number // 2 % 2]
        inner.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(inner / f"{number}.png", pixels)
    return folder


# What is refused, what the error proposes, and that done: expressions of `folder`, `data`, `model`
# and of what stands above.
ADVICE = [
    ("split(small_backbone(), 'x')", r"`kerastl\.stages\(model\)` lists some",
     "split(whole := small_backbone(), stages(whole)[0].name)"),
    ("open_runtime(folder)", r"`kerastl\.frozen\.store\.ActivationStore\(directory\)`",
     "open_runtime(kerastl.frozen.store.ActivationStore(folder))"),
    ("explain(model, data.test)", r"`next\(iter\(split\.images\(\(8, 8\)\)\)\)\.numpy\(\)`",
     "explain(model, next(iter(data.test.images((8, 8)))).numpy())"),
    ("explain(built(flat()), PIXELS[:1], method='grad_cam')", "Use method='occlusion'",
     "explain(built(flat()), PIXELS[:1], method='occlusion')"),
    ("built(Subclassed())", r"Sequential model, start with `keras\.Input`", "built(flat())"),
    ("built(two_outputs())", r"`keras\.Model\(model\.input, model\.outputs\[-1\]\)`",
     "built(keras.Model((whole := two_outputs()).input, whole.outputs[-1]))"),
    ("built(in_h5(folder))", r"load_model\('.*\.h5', compile=False\)\.save\('model\.keras'\)",
     "built(saved_anew(folder))"),
    ("built(small_backbone(), image_size=9)", "`image_size` must be .* or left out",
     "built(small_backbone())"),
    ("overlay(PIXELS, PIXELS)", r"`kerastl\.explain\(model, images\)\.heat`",
     "overlay(PIXELS[:1], explain(model, PIXELS[:1]).heat)"),
    ("evaluate(model, (PIXELS, LABELS + 2))", r"load_data\(\.\.\., class_names=\.\.\.\)`",
     "evaluate(model, load_data((PIXELS, LABELS), class_names=['a', 'b', 'c']).test)"),
    ("evaluate(model, load_data((PIXELS, LABELS)).test)", "Load the data with the `class_names`",
     "evaluate(model, load_data((PIXELS, LABELS), class_names=['a', 'b', 'c']).test)"),
    ("ClassMapper(to_fully_convolutional(model))", "original model of `build_transfer_model`",
     "ClassMapper(model)"),
    ("fine_tune(model, data, recipe='guide', loss='wrong')", "as for `compile`",
     "keras.Model(model.input, model.output).compile(loss='mse')"),
    ("searched('guide', data, model)", "such as 'large_similar' or 'large_different'",
     "searched('large_similar', data, model), searched('large_different', data, model)"),
    ("layerwise_optimizer(model, model.optimizer, layer_decay=0.1)", "new .*, such as 'adamw'",
     "layerwise_optimizer(model, 'adamw', layer_decay=0.1)"),
    ("evaluate(model, data)", r"a split \(`data\.test`\), a pair \(images, labels\) or a tf",
     "[evaluate(model, one) for one in (data.test, (PIXELS, LABELS), tf_data((PIXELS, LABELS)))]"),
    ("train(folders(folder), small_backbone())", r"`model\.save\('mine\.keras'\)`",
     "small_backbone().save(folder / 'mine.keras'), choose_backbone(folder / 'mine.keras')"),
    ("load_data((PIXELS / 255, LABELS))", "Multiply them by 255, or pass `bit_depth=1`",
     "load_data((PIXELS / 255, LABELS), bit_depth=1), load_data((PIXELS / 255 * 255, LABELS))"),
    ("load_data((PIXELS * 16, LABELS))", "from a camera or scanner, pass `bit_depth=12`",
     "load_data((PIXELS * 16, LABELS), bit_depth=12)"),
    ("load_data((PIXELS, ROWS))", r"pass task='multi_label' \(0 and 1.* or task='regression'",
     "[load_data((PIXELS, ROWS), task=task) for task in ('multi_label', 'regression')]"),
    ("load_data((PIXELS, ROWS / 2), task='multi_label')", "Pass task='regression' for numbers",
     "load_data((PIXELS, ROWS / 2), task='regression')"),
    ("load_data(tf_data((PIXELS, LABELS)).repeat())", r"dataset with `dataset\.take\(number\)`",
     "load_data(tf_data((PIXELS, LABELS)).unbatch().repeat().take(24))"),
    ("load_data(folders(folder))", "or pass one of them.* pass them as `class_names`",
     "load_data(folder, class_names=['cats', 'dogs']), load_data(folder / 'cats')"),
    ("load_data(table(folder, 'where,kind', '{}.png,{}'))", "Pass `image_column`",
     "load_data(folder / 'table.csv', image_column='where', label_column='kind')"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "told", "right"), ADVICE, ids=[wrong for wrong, _, _ in ADVICE])
def test_what_an_error_proposes_is_accepted(wrong, told, right, tmp_path, data, model):
    names = {name: getattr(kerastl, name) for name in kerastl.__all__}
    names |= globals() | {"folder": tmp_path, "data": data, "model": model}
    with pytest.raises(kerastl.errors.KerastlError, match=told):
        eval(wrong, names)
    eval(right, names)


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_recipes_and_formats_of_another_task_become_what_the_errors_propose(task):
    of_task = kerastl.load_data((PIXELS.astype("uint8"), ROWS), task=task)
    model = built(small_backbone(), task=task)
    for name in (*SCENARIOS, *PUBLISHED):
        recipe = make_recipe(name, num_stages=2, num_images=24, num_classes=3)
        with pytest.raises(kerastl.errors.ArgumentError, match=r"Use `dataclasses\.repl") as error:
            checked(recipe, model, of_task)
        proposed = re.search(r"Use `(.*?)`", str(error.value))[1]
        checked(eval(proposed, {"dataclasses": dataclasses, "recipe": recipe}), model, of_task)
    checked("large_similar", model, of_task)  # as most of `FEATURES` propose
    assert {*re.findall(r"'(litert\w*)'", FEATURES["integers"].instead)} <= {*BY_NAME}
