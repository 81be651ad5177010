"""Properties of what reads the words of users: tables, recipes, names of backbones, labels."""

import csv
import dataclasses
import io
import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kerastl._atomic import atomic_write_json
from kerastl.backbones.table import BACKBONES, BackboneSpec, parse_backbone
from kerastl.data.changed import MESSAGE, message_if_file_changed
from kerastl.data.classes import normal, order_classes, whole_number
from kerastl.data.examine import what_it_is
from kerastl.data.listing import is_junk, is_side_file
from kerastl.data.tables import list_table
from kerastl.errors import ArgumentError, DataError, KerastlError
from kerastl.model.recipes import PUBLISHED, SCENARIOS, Phase, Recipe, make_recipe
from kerastl.results.run_files import read_labels, read_recipe

ON_ONE_FOLDER = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What may stand in a cell: no NUL, which csv refuses, and not only blanks, which is no label.
CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20
).filter(str.strip)


@ON_ONE_FOLDER
@given(
    st.lists(
        st.tuples(CELLS, CELLS, st.sampled_from(["train", "val", "test"])),
        max_size=8,
        unique_by=lambda row: row[0].strip().replace("\\", "/"),
    ),
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_a_table_keeps_every_row_as_it_was_written(tmp_path, rows, delimiter, encoding):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([("image", "label", "split"), *rows])
    (tmp_path / "table.csv").write_bytes(text.getvalue().encode(encoding))

    entries = list_table(str(tmp_path / "table.csv")).entries

    parts = {"train": "train", "val": "validation", "test": "test"}
    assert [(entry.name, entry.label, entry.part) for entry in entries] == [
        (image, normal(label.strip()), parts[part]) for image, label, part in rows
    ]


@ON_ONE_FOLDER
@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused_in_words(tmp_path, data):
    (tmp_path / "table.csv").write_bytes(b"image,label\n" + data)

    try:
        listing = list_table(str(tmp_path / "table.csv"))
    except KerastlError as error:
        assert str(error)  # noqa: PT017  # most bytes are refused, and that is as good
    else:
        assert listing.num_files >= 0


@given(st.lists(CELLS))
def test_classes_are_each_once_in_an_order_that_does_not_hang_on_the_files(found):
    names = order_classes(found, None)

    assert sorted(names) == sorted({normal(name) for name in found})
    assert names == order_classes(reversed(found), None)


@given(st.lists(st.integers(0, 10**6).map(str), min_size=1))
def test_numbers_in_a_table_are_in_their_order(found):
    assert order_classes(found, None) == sorted(set(found), key=whole_number)


@given(st.text())
def test_junk_and_side_files_are_two_things(name):
    assume("/" not in name)
    assert is_junk("." + name)
    assert is_side_file(f"{name}a.csv")
    assert not is_side_file(name.rstrip(".") + ".png")


@given(st.binary(max_size=64))
def test_what_bytes_are_is_said_in_a_line(data):
    assert what_it_is(data)
    assert "\n" not in what_it_is(data)


RATES = st.floats(0.001, 1.0)
PHASES = st.builds(
    Phase,
    name=st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True),
    freeze_depth=st.integers(0, 12),
    method=st.sampled_from(["probe", "gradient"]),
    epochs=st.integers(1, 50),
    optimizer=st.sampled_from(["adam", "adamw", "sgd"]),
    learning_rate=st.floats(1e-9, 10.0),
    backbone_rate=RATES,
    layer_decay=RATES,
    schedule=st.sampled_from(["cosine", "one_cycle", "constant", "step"]),
    warmup=st.floats(0, 1),
    weight_decay=st.floats(0, 1),
    clipnorm=st.floats(0, 100),
)
RECIPES = st.builds(
    Recipe,
    name=st.text(max_size=10),
    phases=st.lists(PHASES, min_size=1, max_size=3, unique_by=lambda p: p.name).map(tuple),
    reason=st.text(max_size=30),
    backbone=st.sampled_from(["MobileNetV2(alpha=0.35)", "ResNet50"]),
    cut=st.none() | st.integers(1, 12),
    image_size=st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)),
    batch_size=st.integers(1, 512),
    augmentation=st.sampled_from(["none", "flip", "light", "medium", "strong"]),
    views=st.integers(0, 9),
    mixup_alpha=st.floats(0, 5),
    label_smoothing=st.floats(0, 0.99),
    patience=st.integers(1, 99),
    validation_fraction=st.floats(0, 0.9),
    seed=st.integers(0, 2**31 - 1),
)


@given(RECIPES)
def test_a_recipe_is_the_same_after_json(recipe):
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict(), allow_nan=False))) == recipe


@ON_ONE_FOLDER
@given(RECIPES)
def test_a_recipe_is_the_same_after_its_file(tmp_path, recipe):
    atomic_write_json(tmp_path / "recipe.json", {"recipe": recipe.to_dict()})

    assert read_recipe(tmp_path / "recipe.json") == recipe


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = [field.name for field in dataclasses.fields(Recipe)]


@given(st.sampled_from(FIELDS), JSON)
def test_any_value_of_a_field_is_taken_or_refused_in_words(field, value):
    numbers = {"num_stages": 5, "num_images": 500, "num_classes": 3}
    plain = make_recipe("large_similar", **numbers).to_dict() | {field: value}

    try:
        recipe = Recipe.from_dict(plain)
    except ArgumentError as error:
        assert str(error)  # noqa: PT017  # most values are refused, and that is as good
    else:
        assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", SCENARIOS + PUBLISHED)
def test_every_named_recipe_is_the_same_after_json(name):
    recipe = make_recipe(name, num_stages=6, num_images=900, num_classes=4)

    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@st.composite
def specs(draw):
    record = draw(st.sampled_from(BACKBONES))
    kinds = {float: st.floats(0, 9, exclude_min=True), int: st.integers(2, 9), bool: st.booleans()}
    drawn = [(key, draw(kinds[type(default)]), default) for key, default in record.arguments]
    return BackboneSpec(record, tuple((key, value) for key, value, own in drawn if value != own))


@given(specs())
def test_a_backbone_is_read_as_it_is_spelt(spec):
    assert parse_backbone(str(spec)) == spec


@given(st.text(max_size=30))
def test_any_text_is_a_backbone_or_refused_in_words(text):
    try:
        spec = parse_backbone(text)
    except ArgumentError as error:
        assert "Received: backbone=" in str(error)  # noqa: PT017  # nearly all texts are
    else:
        assert parse_backbone(str(spec)) == spec


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=9)


@ON_ONE_FOLDER
@given(st.lists(NAMES.filter(str.isprintable), min_size=1, max_size=9))
def test_labels_are_read_as_they_are_written(tmp_path, names):
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")

    assert read_labels(path) == names


@given(st.text(st.characters(codec="utf-8", exclude_characters="]\n"), min_size=1, max_size=20))
def test_the_file_is_found_in_the_error_of_the_pipeline(name):
    import tensorflow as tf

    error = tf.errors.InvalidArgumentError(None, None, f"failed: [{MESSAGE}] [{name}]\n\t [[x]]")

    assert f": {name} (other bytes)." in message_if_file_changed(error)
    assert message_if_file_changed(ValueError(str(error))) is None
    assert message_if_file_changed(tf.errors.InvalidArgumentError(None, None, name)) is None


def test_a_table_that_is_cut_inside_quotes_is_refused(tmp_path):
    (tmp_path / "table.csv").write_text('image,label\n"a.png,x\n')

    with pytest.raises(DataError, match="Each row needs an image and a label"):
        list_table(str(tmp_path / "table.csv"))
