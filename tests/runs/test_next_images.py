import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kerastl.data.load import load_data
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import ArgumentError, DataError
from kerastl.results.next_labels import least_sure_first, typical_first
from kerastl.runs.run import load_run
from tests.command import kerastl


def blobs(sizes, seed=0, spread=0.05):
    """Return embeddings of groups of these sizes, and the group of each."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return (np.eye(len(sizes), 12)[groups] + spread * rng.normal(size=(len(groups), 12))), groups


def test_one_of_each_group_and_the_largest_group_first():
    x, groups = blobs([30, 10, 20])
    chosen = typical_first(x, x[:0], 3)
    assert groups[chosen].tolist() == [0, 2, 1]


def test_the_most_typical_of_a_group_by_brute_force():
    x, groups = blobs([25, 12, 15], seed=3)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for place in typical_first(x, x[:0], 3):
        mine = np.flatnonzero(groups == groups[place])
        away = np.linalg.norm(unit[mine][:, None] - unit[mine][None], axis=2)
        means = np.sort(away, axis=1)[:, 1:21].mean(1)
        assert place == mine[means.argmin()]


def test_groups_with_labels_come_last():
    x, groups = blobs([30, 10, 20, 15])
    labelled, pool, of = x[::2], x[1::2], groups[1::2]
    have = labelled[:15]  # of the first group alone
    chosen = typical_first(pool, have[:1], 3)
    assert set(of[chosen]) == {1, 2, 3}


@pytest.mark.parametrize(("size", "count"), [(1, 1), (4, 4), (130, 130), (700, 520)])
def test_each_image_is_chosen_once(size, count):
    x = np.random.default_rng(0).normal(size=(size, 5))
    chosen = typical_first(x, x[:0], count)
    assert len(set(chosen.tolist())) == count
    assert chosen.min() >= 0


def test_images_of_no_length_are_no_error():
    assert len(typical_first(np.zeros((6, 4)), np.zeros((0, 4)), 3)) == 3


def test_least_sure_first():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.4, 0.35, 0.25], [0.5, 0.3, 0.2]])
    assert least_sure_first(probabilities, 2).tolist() == [1, 2]


@pytest.fixture(scope="module")
def pool(finished_run, tmp_path_factory):
    """A folder with the images that the run was trained on, and eight others."""
    folder = tmp_path_factory.mktemp("pool") / "pool"
    for part in ("train", "val"):
        shutil.copytree(finished_run.images / part, folder / part)
    rng = np.random.default_rng(5)
    for number in range(8):
        pixels = rng.integers(0, 256, (32, 32, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"new{number}.png")
    return folder


def test_near_copies_of_the_run_are_left_out(finished_run, pool, tmp_path):
    """The same pixels, some a little brighter, in files of another kind; and a run of 0.2.0."""
    again = shutil.copytree(pool, tmp_path / "again")
    for path in (again / "train" / "dark").glob("*.png"):
        pixels = np.asarray(Image.open(path)).astype(int) + 2
        Image.fromarray(pixels.astype("uint8")).save(path)
    run = load_run(shutil.copytree(finished_run.directory, tmp_path / "run"))
    found = run.next(again, count=50)
    assert all("new" in path for path in found.paths)
    source = load_unlabelled([str(pool / "train")])[0].source
    run.files.write(run.files.SEEN, "".join(f"{one}\n" for one in source.contents()))
    assert not any("/train/" in path for path in run.next(pool, count=50).paths)


@pytest.mark.parametrize("rule", ["typical", "margin"])
def test_images_of_the_run_are_left_out(finished_run, pool, tmp_path, rule):
    run = load_run(finished_run.directory)
    found = run.next(pool, count=5, rule=rule)
    assert len(found) == 5
    assert all("new" in path for path in found.paths)
    assert found.num_known > 0
    found.write_csv(tmp_path / "next.csv")
    rows = (tmp_path / "next.csv").read_text().splitlines()
    assert rows[0] == "image,label"
    assert rows[1:] == [f"{path}," for path in found.paths]


def test_what_has_labels_is_read_as_the_run_reads(finished_run, pool, monkeypatch):
    """A run of squashed images: the data it gets is squashed as well."""
    run = load_run(finished_run.directory)
    asked = {}

    def load(*arguments):
        asked["options"] = arguments[-1]
        return load_data(str(finished_run.images))

    monkeypatch.setattr("kerastl.runs.next_images.load_whole", load)
    by_name = run.next(pool, count=3, labelled=str(finished_run.images))
    assert asked["options"].resize == run.rules.resize
    loaded = load_data(str(finished_run.images))
    assert run.next(pool, count=3, labelled=loaded) == by_name


def test_the_table_reads_back_from_another_folder(finished_run, pool, tmp_path, monkeypatch):
    monkeypatch.chdir(pool)
    found = load_run(finished_run.directory).next(".", count=8)
    table = tmp_path / "next.csv"
    found.write_csv(table)
    monkeypatch.chdir(tmp_path)
    head, *rows = table.read_text().splitlines()
    labelled = [f"{row}{('dark', 'bright')[n % 2]}" for n, row in enumerate(rows)]
    table.write_text("\n".join([head, *labelled]))
    data = load_data(str(table), validation_fraction=0.0, test_fraction=0.0)
    assert len(data.train) == 8


def test_the_command(finished_run, pool, tmp_path):
    told = kerastl(
        "next", finished_run.directory, pool, "--count", 2, "--labelled", finished_run.images,
        "--output", tmp_path / "next.csv", "--json",
    )  # fmt: skip
    assert len(json.loads(told.stdout)["paths"]) == 2
    assert len((tmp_path / "next.csv").read_text().splitlines()) == 3
    assert "new" in kerastl("next", finished_run.directory, pool, "--count", 2).stdout


def test_errors(finished_run, tmp_path):
    run = load_run(finished_run.directory)
    with pytest.raises(ArgumentError, match="`rule`"):
        run.next(finished_run.images, rule="best")
    with pytest.raises(ArgumentError, match="`count`"):
        run.next(finished_run.images, count=0)
    train = sorted(finished_run.images.rglob("*.png"))
    seen = run.files.path(run.files.SEEN).read_text()
    assert seen
    only = tmp_path / "only"
    only.mkdir()
    for path in train:
        (one,) = load_unlabelled([str(path)])[0].source.prints()
        if one.picture in seen:
            shutil.copy(path, only / path.name)
            break
    with pytest.raises(DataError, match="was trained on all 1 images"):
        run.next(only)
