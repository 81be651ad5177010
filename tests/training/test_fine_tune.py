import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import kerastl
from kerastl.advice.blend import BlendProbe
from kerastl.data.augment import AUGMENTATIONS
from kerastl.data.load import load_data
from kerastl.data.split import Split
from kerastl.errors import ArgumentError, DataError, TrainingError
from kerastl.frozen.activations import extract_embeddings
from kerastl.model.build import build_transfer_model
from kerastl.model.freeze import batch_normalizations
from kerastl.model.recipes import Phase, Recipe, make_recipe
from kerastl.results.evaluate import evaluate
from kerastl.training.fine_tune import fine_tune, is_head_only, refit_head
from kerastl.training.objective import check_objective
from kerastl.training.phases import schedule_of
from tests.training.small import SIZE, small_backbone, small_data, unsettled


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return build_transfer_model(small_backbone(), 3)


@pytest.fixture(scope="module")
def settled_data():
    """Images that the head alone tells apart without an error."""
    return small_data()


@pytest.fixture(scope="module")
def unsettled_data(settled_data):
    return unsettled(settled_data)


def without_validation(data):
    return dataclasses.replace(data, validation=None)


def recipe(*phases, **changes):
    return Recipe("test", phases, augmentation="light", batch_size=16, **changes)


PROBE = Phase("head", freeze_depth=2, method="probe")
OPEN = Phase("fine_tune", freeze_depth=1, epochs=2, learning_rate=1e-3, layer_decay=0.5)


def test_head_then_the_rest(model, unsettled_data, tmp_path):
    normalizations = list(batch_normalizations(model))
    before = [w.copy() for layer in normalizations for w in layer.get_weights()]
    frozen = model.get_layer("backbone").get_layer("conv_0").get_weights()
    history = fine_tune(model, unsettled_data, recipe=recipe(PROBE, OPEN), log_dir=tmp_path)
    after = [w for layer in normalizations for w in layer.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    conv_0 = model.get_layer("backbone").get_layer("conv_0")
    assert np.array_equal(frozen[0], conv_0.get_weights()[0])
    assert isinstance(history, keras.callbacks.History)
    assert history.history["phase"] == ["head", "fine_tune", "fine_tune"]
    assert {len(series) for series in history.history.values()} == {3}
    assert set(history.seconds) == {"head", "fine_tune"}
    assert history.history["val_accuracy"][-1] > 0.7
    assert evaluate(model, unsettled_data.test)["accuracy"] > 0.9
    assert list((tmp_path / "fine_tune").rglob("events*"))
    model.fit(
        unsettled_data.train.batches(SIZE), shuffle=False, verbose=0
    )  # compiled for the user's own labels


class Counting(keras.callbacks.Callback):
    """Tells a list, which copies share, of each epoch and of which copy it is."""

    seen = []  # noqa: RUF012

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((self, epoch, sorted(logs)))  # itself: a number could come again


def test_callbacks_metrics_and_numbers_as_keras_users_write_them(model, unsettled_data):
    Counting.seen.clear()
    given, metric = Counting(), keras.metrics.TopKCategoricalAccuracy(2, name="top_2")
    first = dataclasses.replace(OPEN, freeze_depth=2)
    history = fine_tune(
        model, unsettled_data, recipe=recipe(first, dataclasses.replace(first, name="again")),
        epochs=1, batch_size=10, callbacks=[given], metrics=[metric], verbose=False,
    )  # fmt: skip
    copies, epochs, logs = zip(*Counting.seen, strict=True)
    assert epochs == (0, 0)
    assert len(set(copies)) == 2  # of each phase
    assert given not in copies
    assert set(logs[0]) >= {"accuracy", "loss", "top_2", "val_accuracy", "val_loss", "val_top_2"}
    assert history.history["top_2"][-1] > 0.5
    assert float(metric.result()) == 0  # the phases have copies


def test_a_loss_and_weights_of_classes_are_those_of_fit(model, settled_data):
    """A class that counts for nothing is never told; a loss of nothing moves nothing."""
    data = without_validation(settled_data)
    rate = dataclasses.replace(OPEN, freeze_depth=2, epochs=8, learning_rate=0.1)
    weights = {data.class_names[0]: 0.0, 1: 1.0}
    fine_tune(model, data, recipe=recipe(rate), class_weight=weights, verbose=False)
    answers = model.predict(data.train.images(SIZE), verbose=0)
    assert (answers[:, 0] < 0.2).all()
    before = model.get_weights()
    nothing = lambda labels, outputs: 0.0 * keras.ops.sum(labels * outputs, axis=-1)  # noqa: E731
    fine_tune(model, data, recipe=recipe(rate), loss=nothing, verbose=False)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_another_loss_is_another_training(model, settled_data, tmp_path):
    how = {"recipe": recipe(OPEN), "checkpoints": tmp_path, "verbose": False}
    fine_tune(model, settled_data, **how)
    with pytest.raises(DataError, match="class_weight"):
        fine_tune(model, settled_data, class_weight={0: 2.0}, **how)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (None, {}),
        ("mse", {"loss": "mse"}),
        (keras.losses.mean_squared_error, {"loss": "mean_squared_error"}),
    ],
)
def test_what_a_resumed_training_must_have_again(model, settled_data, loss, told):
    one = Counting()
    found = check_objective(model, settled_data, one, loss, ["mse"], None)
    assert found.to_dict() == told
    assert [type(copied) for copied in found.callbacks_of(OPEN)] == [Counting]
    assert found.callbacks_of(OPEN)[0] is not one
    weighted = check_objective(model, settled_data, None, loss, "mse", {1: 2.0})
    assert weighted.to_dict() == {**told, "class_weight": [1.0, 2.0, 1.0]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"callbacks": "early"}, "`callbacks` must be a Callback or a list, .* or a function"),
        ({"callbacks": [lambda phase: []]}, "`callbacks` must be a Callback or a list, "),
        ({"loss": "photos/"}, "Could not interpret loss identifier: photos/"),
        ({"loss": 3}, "`loss` must be a name, a function or one of `keras.losses`. Received: int"),
        ({"metrics": ["photos/"]}, "Could not interpret metric identifier: photos/"),
        ({"epochs": 0}, "`epochs` must be an int of at least 1"),
        ({"batch_size": 0}, "`batch_size` must be an int of at least 1"),
        ({"class_weight": {"unicorn": 2.0}}, "by number or name, to weights. Received: 'unicorn'"),
        ({"class_weight": {0: -1.0}}, "`class_weight` must be a number of at least 0"),
        (
            {"recipe": Recipe("head", (PROBE,)), "loss": "mse"},
            "without `loss`. Choose a recipe that",
        ),
        (
            {"recipe": "small_similar", "metrics": ["mse"]},
            "'small_similar' fits the head in closed form",
        ),
    ],
)
def test_wrong_types_are_refused_before_any_work(model, settled_data, changes, told):
    given = {"model": model, "data": settled_data, "recipe": recipe(OPEN), **changes}
    before = model.get_weights()
    with pytest.raises(ArgumentError, match=told):
        kerastl.fine_tune(**given)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_there_are_classes_to_weigh_in_classification_alone(model, settled_data, task):
    rows = np.eye(3, dtype="float32")[settled_data.train.labels]
    train = Split(settled_data.train.source, rows, 3, task=task)
    data = dataclasses.replace(settled_data, train=train)
    told = f"takes task='classification' alone. Received: task='{task}'. Pass a `loss`"
    with pytest.raises(ArgumentError, match=told):
        check_objective(model, data, None, None, (), {0: 2.0})


def test_devices_share_a_loss_that_is_a_mean(model, settled_data, monkeypatch):
    monkeypatch.setattr("kerastl.training.objective.num_replicas", lambda model: 2)
    mean = keras.losses.MeanSquaredError(reduction="mean")
    for loss in (None, "mse", mean, keras.losses.mean_squared_error, type(mean)()):
        check_objective(model, settled_data, None, loss, (), {0: 2.0})
    loss = keras.losses.MeanSquaredError(reduction="sum")
    with pytest.raises(ArgumentError, match=r"MeanSquaredError\(reduction='sum'\)\. Leave"):
        check_objective(model, settled_data, None, loss, (), None)


@pytest.mark.parametrize(
    ("name", "opened"),
    [("small_similar", 2), (None, 2), ("guide", 0), ("fastai", 0), ("bit", 0), ("scratch", 0)],
)
def test_a_recipe_trains_the_layers_that_it_opens_and_no_others(model, settled_data, name, opened):
    data = without_validation(settled_data)  # else the weights may be those of before a phase
    made = name
    if name not in ("small_similar", None):
        made = make_recipe(
            name, num_stages=2, num_images=len(data.train), num_classes=3, batch_size=16
        )
        changes = {"epochs": 1, "warmup": 0.0, "learning_rate": 1e-2}
        short = [dataclasses.replace(phase, **changes) for phase in made.phases]
        made = dataclasses.replace(made, phases=tuple(short))
    before = {variable.path: np.array(variable) for variable in model.weights}
    fine_tune(model, data, recipe=made, verbose=False)
    changed = {v.path for v in model.weights if not np.array_equal(before[v.path], v)}
    expected = {f"conv_{stage}/kernel" for stage in range(opened, 2)}
    if name == "scratch":
        expected |= {path for path in before if path.startswith("bn_")}
    assert changed == expected | {"head/kernel", "head/bias"}


def test_mixed_and_smoothed_labels_reach_the_loss(model, settled_data):
    """At a rate of nothing, the loss of the epoch is that of the head on what it was given."""
    data = without_validation(settled_data)
    count = len(data.train)
    still = dataclasses.replace(OPEN, freeze_depth=0, epochs=1, learning_rate=1e-30)
    made = Recipe(
        "test", (PROBE, still), augmentation="none", batch_size=count, seed=4, mixup_alpha=0.4,
        label_smoothing=0.1,
    )  # fmt: skip
    history = fine_tune(model, data, recipe=made, verbose=False)
    mixed = dataclasses.replace(AUGMENTATIONS["none"], mixup_alpha=0.4)
    ((images, labels),) = data.train.batches(
        SIZE, count, shuffle=True, seed=4, epochs=1, augmentation=mixed, one_hot=True
    )
    assert ((labels > 0.01) & (labels < 0.99)).numpy().any(-1).sum() > count / 10
    smoothed = labels * 0.9 + 0.1 / 3
    expected = -(smoothed * np.log(model.predict(images, verbose=0))).numpy().sum(-1).mean()
    assert history.history["loss"][-1] == pytest.approx(expected, rel=1e-4)


def test_without_validation_images(model, settled_data):
    data = without_validation(settled_data)
    history = fine_tune(model, data, recipe=recipe(PROBE, OPEN), verbose=False)
    assert "val_loss" not in history.history
    assert history.best_epoch == {"head": 1, "fine_tune": 2}


def test_a_phase_that_does_harm_is_undone(model, settled_data, capsys):
    data = unsettled(dataclasses.replace(settled_data, validation=settled_data.train))
    fine_tune(model, data, recipe=recipe(PROBE), verbose=False)
    head = model.get_layer("head").get_weights()[0]
    harm = dataclasses.replace(OPEN, learning_rate=1e3, optimizer="sgd", warmup=0.0)
    history = fine_tune(model, data, recipe=recipe(PROBE, harm))
    assert history.best_epoch["fine_tune"] == 0
    assert history.decisions["fine_tune"].startswith("fine_tune: not kept. ")
    assert history.decisions["fine_tune"] in capsys.readouterr().err
    np.testing.assert_array_equal(model.get_layer("head").get_weights()[0], head)


def test_what_could_not_be_kept_is_not_trained(model, settled_data, capsys):
    history = fine_tune(model, settled_data, recipe=recipe(PROBE, OPEN))
    assert history.history["phase"] == ["head"]
    assert history.history["val_accuracy"] == [1.0]
    assert history.best_epoch == {"head": 1, "fine_tune": 0}
    assert "fine_tune: skipped. The head already classifies 100.0% of 7" in capsys.readouterr().err


def test_a_loss_that_is_no_number_names_the_remedy_and_leaves_good_weights(model, unsettled_data):
    wild = dataclasses.replace(OPEN, learning_rate=3e38, optimizer="sgd", warmup=0.0, clipnorm=0.0)
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        fine_tune(model, unsettled_data, recipe=recipe(PROBE, wild), verbose=False)
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_one_seed_one_result(unsettled_data):
    heads = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = build_transfer_model(small_backbone(), 3)
        fine_tune(model, unsettled_data, recipe=recipe(PROBE, OPEN, seed=3), verbose=False)
        heads.append(model.get_weights())
    for first, second in zip(*heads, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_head_is_refitted_on_all_images(model, settled_data):
    head_only = recipe(PROBE)
    fine_tune(model, settled_data, recipe=head_only, verbose=False)
    refit_head(model, settled_data, head_only)
    parts = [
        extract_embeddings(model, split, flipped=True)
        for split in (settled_data.train, settled_data.validation)
    ]
    x = np.concatenate([part.x for part in parts])
    y = np.concatenate([part.y for part in parts])
    groups = np.concatenate([np.tile(np.arange(41), 2), 41 + np.tile(np.arange(7), 2)])
    expected = BlendProbe().fit(x, y, groups)
    np.testing.assert_allclose(
        model.get_layer("head").get_weights()[0], expected.coef_.T, atol=1e-4
    )


@pytest.mark.parametrize(
    ("phases", "best_epoch", "expected"),
    [
        ((PROBE,), {"head": 1}, True),
        ((PROBE, OPEN), {"head": 1, "fine_tune": 0}, True),
        ((PROBE, OPEN), {"head": 1, "fine_tune": 2}, False),
        ((OPEN,), {"fine_tune": 0}, False),
    ],
)
def test_what_is_left_of_a_fine_tuning_that_did_not_help_is_the_head(phases, best_epoch, expected):
    history = keras.callbacks.History()
    history.best_epoch = best_epoch
    assert is_head_only(recipe(*phases), history) is expected


def test_a_recipe_for_a_head_of_all_stages_needs_one(model, settled_data):
    made = recipe(PROBE, head="stages")
    with pytest.raises(ArgumentError, match=r"build_transfer_model\(\.\.\., head='stages'\)"):
        fine_tune(model, settled_data, recipe=made)
    of_stages = build_transfer_model(small_backbone(), 3, head="stages")
    history = fine_tune(of_stages, settled_data, recipe=made, verbose=False)
    assert history.history["val_accuracy"] == [1.0]


@pytest.mark.parametrize("depth", [0, 2])
def test_fine_tuning_under_a_head_of_all_stages(unsettled_data, depth):
    """Frozen stages give the open ones and the head an input each, also when it is decided."""
    model = build_transfer_model(small_backbone(3), 3, head="stages")
    opened = dataclasses.replace(OPEN, freeze_depth=depth)
    made = recipe(PROBE, opened, head="stages")
    made = dataclasses.replace(made, augmentation="flip")  # frozen stages come from the store
    before = model.get_layer("backbone").get_weights()
    history = fine_tune(model, unsettled_data, recipe=made, verbose=False)
    assert history.history["phase"] == ["head"] + ["fine_tune"] * opened.epochs
    assert "Validation accuracy" in history.decisions["fine_tune"]
    if history.best_epoch["fine_tune"]:
        after = model.get_layer("backbone").get_weights()
        assert any((old != new).any() for old, new in zip(before, after, strict=True))
    assert history.history["loss"][-1] < 1


def test_a_recipe_for_a_cut_backbone_needs_one(model, settled_data):
    cut = recipe(PROBE, cut=1)
    with pytest.raises(ArgumentError, match=r"build_transfer_model\(\.\.\., cut=1\)"):
        fine_tune(model, settled_data, recipe=cut)
    shorter = build_transfer_model(small_backbone(), 3, cut=1)
    assert shorter.count_params() < model.count_params()
    assert fine_tune(shorter, settled_data, recipe=cut, verbose=False).history["accuracy"]


def test_model_and_data_must_fit(settled_data):
    model = build_transfer_model(small_backbone(), 4)
    with pytest.raises(ArgumentError, match="has 4 classes, the data has 3"):
        fine_tune(model, settled_data)


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0.0, {0: 1.0, 99: 1.0}),
        ("cosine", 0.1, {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5, 100: 0.0}),
        ("cosine", 0.0, {0: 1.0, 50: 0.5, 100: 0.0}),
        ("one_cycle", 0.25, {0: 0.04, 25: 1.0, 100: 0.0}),
        ("step", 0.0, {0: 1.0, 29: 1.0, 31: 0.1, 61: 0.01, 91: 0.001}),
    ],
)
def test_schedules(schedule, warmup, rates):
    phase = Phase("x", 0, epochs=1, learning_rate=1.0, schedule=schedule, warmup=warmup)
    rate = schedule_of(phase, 100)
    for step, expected in rates.items():
        got = rate(step) if callable(rate) else rate
        assert float(got) == pytest.approx(expected, abs=1e-6), step


FAMILIES = {  # `connected` has what each of them connects
    "MobileNetV3Small": pytest.mark.slow, "ResNet50V2": pytest.mark.slow,
    "DenseNet121": pytest.mark.slow, "MobileNetV2(alpha=0.35)": pytest.mark.sweep,
    "ResNet50": pytest.mark.sweep, "EfficientNetB0": pytest.mark.sweep,
}  # fmt: skip


def connected():
    """Return a network with what those of the families connect: concatenations, sums, products."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, 2, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("swish")(x)
    dense = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Concatenate()([x, layers.Conv2D(4, 3, padding="same")(dense)])
    before = layers.ReLU()(layers.BatchNormalization()(x))  # a residual with pre-activation
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(before)
    y = layers.Activation("hard_swish")(layers.BatchNormalization()(y))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    y = layers.Multiply()([y, layers.Conv2D(8, 1, activation="sigmoid")(gate)])
    x = layers.Add()([x, layers.Conv2D(8, 1, use_bias=False)(y)])
    return keras.Model(inputs, layers.ReLU()(layers.BatchNormalization()(x)))


@pytest.mark.parametrize(
    "name", [None, *(pytest.param(name, marks=mark) for name, mark in FAMILIES.items())]
)
def test_moving_statistics_stay_bit_identical(name):
    rng, size = np.random.default_rng(0), 16 if name is None else 32
    images, labels = rng.integers(0, 256, (12, size, size, 3)).astype("uint8"), np.arange(12) % 2
    data = load_data((images, labels), validation_fraction=0.0)
    if name is None:
        model = build_transfer_model(connected(), 2)
    else:
        model = build_transfer_model(name, 2, weights="random", image_size=32)
    normalizations = list(batch_normalizations(model))
    assert len(normalizations) > (4 if name is None else 20)
    before = [w.copy() for layer in normalizations for w in layer.get_weights()]
    kernels = [w.copy() for w in model.get_layer("backbone").get_weights()]
    head = model.get_layer("head")
    head.set_weights([rng.normal(size=w.shape) for w in head.get_weights()])
    phase = Phase("fine_tune", freeze_depth=0, epochs=1, learning_rate=1e-3, warmup=0.0)
    fine_tune(model, data, recipe=recipe(phase), verbose=False)
    after = [w for layer in normalizations for w in layer.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    moved = model.get_layer("backbone").get_weights()
    assert not all(np.array_equal(a, b) for a, b in zip(kernels, moved, strict=True))
