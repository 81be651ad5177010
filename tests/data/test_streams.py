from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerastl.data import streams
from kerastl.data.load import load_data
from kerastl.errors import DataError
from tests.data.prepared import write_tfds

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (30, 5, 6, 3), np.uint8)
Y = np.arange(30) % 3


def slices(x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y))


def gray():
    return slices(X[..., 0])


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (slices(), X),
        (slices().batch(7), X),
        (slices(X.astype(np.float32)).batch(7), X),
        (gray(), np.repeat(X[..., :1], 3, -1)),
        (gray().batch(7), np.repeat(X[..., :1], 3, -1)),
        (slices(y=np.eye(3)[Y]).batch(7), X),
        (slices(y=np.eye(3)[Y]), X),
    ],
    ids=["one", "batch", "float", "gray", "gray_batch", "one_hot_batch", "one_hot"],
)
def test_batched_or_not(dataset, expected):
    data = load_data(dataset, validation_fraction=0, test_fraction=0)

    np.testing.assert_array_equal(next(iter(data.train.images((5, 6)))), expected)
    np.testing.assert_array_equal(data.train.labels, Y)


def test_sizes_may_differ():
    def images():
        for index in range(12):
            yield np.full((4 + index, 6, 3), index, np.uint8), index % 2

    signature = tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.int64)
    dataset = tf.data.Dataset.from_generator(images, output_signature=signature)

    for each in (dataset, dataset.ragged_batch(5)):
        source, labels = streams.spool(each, "train")
        assert [source.take(index).shape[0] for index in range(12)] == list(range(4, 16))
        assert [source.take(index)[0, 0, 0] for index in range(12)] == list(range(12))
        assert labels.tolist() == [0, 1] * 6


def test_a_shuffled_data_set_cannot_leak():
    marks = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 4, 4, 3))
    data = load_data(slices(marks, np.arange(60) % 3).shuffle(60))
    splits = (data.train, data.validation, data.test)

    seen = [set(next(iter(s.images(4, 60)))[:, 0, 0, 0].numpy()) for s in splits]
    again = [set(next(iter(s.images(4, 60)))[:, 0, 0, 0].numpy()) for s in splits]

    assert seen == again
    assert set.union(*seen) == set(range(60))
    assert sum(map(len, seen)) == 60


def test_class_names_come_along():
    dataset = slices()
    dataset.class_names = ["ant", "bee", "cat"]

    assert load_data(dataset).class_names == ["ant", "bee", "cat"]
    reordered = load_data(dataset, class_names=["cat", "bee", "ant"], test_fraction=0)
    assert reordered.class_names == ["cat", "bee", "ant"]
    with pytest.raises(DataError, match="Received in addition: cat"):
        load_data(dataset, class_names=["ant", "bee", "dog"])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (slices(X / 255), "Multiply them by 255"),
        (slices(X / 127.5 - 1), "Remove your preprocessing"),
        (slices(np.where(X > 250, np.nan, X)), "Pixels must be finite"),
        (slices(y=Y - 1), "labels from -1 to 1"),
        (slices().take(0), r"Received: an empty train dataset"),
        (tf.data.Dataset.from_tensor_slices(X), r"pairs \(image, label\). Received: EagerTensor"),
        (slices(X[..., :2]).batch(4), r"Received: \(5, 6, 2\)"),
        (slices(X.astype(str)), "dtype object"),
    ],
)
def test_what_cannot_be_meant(dataset, message):
    with pytest.raises(DataError, match=message):
        load_data(dataset)


@pytest.mark.parametrize(
    "endless",
    [
        slices().repeat(),
        slices().batch(4).repeat().prefetch(2),
        slices().repeat().map(lambda x, y: (x, y)),
        slices().repeat().shuffle(9).batch(3),
        tf.data.Dataset.zip((tf.data.Dataset.from_tensors(X[0]).repeat(), slices().repeat())),
    ],
)
def test_an_endless_data_set_is_refused_before_it_is_read(endless):
    with pytest.raises(
        DataError, match=r"Received: an infinite dataset in train. Remove `repeat\(\)`"
    ):
        load_data(endless)
    with pytest.raises(DataError, match="an infinite dataset in test"):
        load_data((slices(), endless))


def test_a_data_set_of_unknown_length_is_told_of_and_ends_at_a_limit(monkeypatch, capsys):
    unknown = slices().repeat().filter(lambda *_: True)
    monkeypatch.setattr(streams, "_TELL_EVERY", 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2 * 50 * 5 * 6 * 3))

    with pytest.raises(DataError, match=r"after 51 images 4,590 bytes .* `dataset.take\(number\)`"):
        load_data(unknown)

    told = capsys.readouterr().err.splitlines()
    assert told == [f"{n} train images of a tf.data.Dataset so far" for n in (20, 40)]


def test_a_pair_is_to_train_and_to_test_on():
    for source in (((X, Y), (X[:6], Y[:6])), (slices(), slices(X[:6], Y[:6]).batch(4))):
        data = load_data(source)

        assert [len(s) for s in (data.train, data.validation, data.test)] == [26, 4, 6]


@pytest.mark.parametrize("mode", ["int", "categorical", "binary"])
@pytest.mark.parametrize("named", [True, False])
def test_what_keras_reads_from_a_directory(tmp_path, mode, named):
    for name in ("ant", "bee"):
        for number in range(8):
            file = tmp_path / name / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(X[number + 8 * (name == "bee")]).save(file)
    pair = keras.utils.image_dataset_from_directory(
        tmp_path, label_mode=mode, image_size=(5, 6), validation_split=0.25, subset="both", seed=1,
        verbose=False,
    )  # fmt: skip

    data = load_data(pair if named else tuple(each.map(lambda x, y: (x, y)) for each in pair))

    assert data.class_names == (["ant", "bee"] if named else ["0", "1"])
    assert [len(data.train) + len(data.validation), len(data.test)] == [12, 4]
    label = {X[number].tobytes(): number // 8 for number in range(16)}
    shown = next(iter(data.test.images((5, 6)))).numpy()
    assert [label[image.tobytes()] for image in shown] == data.test.labels.tolist()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_tfds(folder, X)
    return folder


def test_tfds(prepared):
    data = load_data("tfds:insects", data_dir=str(prepared))

    assert data.class_names == ["ant", "bee"]
    assert [len(split) for split in (data.train, data.validation, data.test)] == [17, 3, 6]
    shown = {bytes(image) for image in next(iter(data.test.images((5, 6)))).numpy()}
    assert shown == {bytes(image) for image in X[:6]}


def test_a_builder_of_tfds(prepared):
    import tensorflow_datasets as tfds

    data = load_data(tfds.builder("insects", data_dir=str(prepared)))

    assert (data.class_names, len(data.test)) == (["ant", "bee"], 6)
    assert data.source == "tfds:insects"


def test_tfds_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"cannot load 'no_such_set': .*Check the name and"):
        load_data("tfds:no_such_set", data_dir=str(tmp_path))


def test_the_spool_needs_no_memory_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    source, _ = streams.spool(slices(), "train")

    assert isinstance(source.pixels, np.memmap)
    assert list(tmp_path.iterdir()) == []
    assert Image.fromarray(source.take(3)).size == (6, 5)
