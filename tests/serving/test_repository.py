import os

import pytest

from kerastl.errors import DataError
from kerastl.serving.repository import Repository


class Loaded:
    def __init__(self, path):
        self.number = int(path.name)
        if (path / "saved_model.pb").read_text() != "fine":
            raise ValueError("damaged")


@pytest.fixture
def put(tmp_path):
    def write(number, text="fine"):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "saved_model.pb").write_text(text)

    return write


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path, Loaded)


def test_the_newest_is_served(repository, put):
    put(2), put(10)
    repository.start()
    assert repository.served.number == 10
    assert not repository.refresh()
    put(11)
    assert repository.refresh()
    assert repository.served.number == 11


def test_one_that_does_not_load_is_passed_over_until_it_changes(repository, put, tmp_path, caplog):
    put(1), put(2, "torn")
    repository.start()
    assert repository.served.number == 1
    assert "Version 2" in caplog.text
    assert "damaged" in caplog.text
    caplog.clear()
    assert not repository.refresh()
    assert caplog.text == ""
    put(2)
    os.utime(tmp_path / "2" / "saved_model.pb", (1, 1))
    assert repository.refresh()
    assert repository.served.number == 2


def test_a_version_that_is_taken_away_gives_way_to_the_one_before(repository, put, tmp_path):
    put(1), put(2)
    repository.start()
    (tmp_path / "2" / "saved_model.pb").unlink()
    assert repository.refresh()
    assert repository.served.number == 1
    (tmp_path / "1" / "saved_model.pb").unlink()
    assert not repository.refresh()
    assert repository.served.number == 1


def test_nothing_to_serve(repository, put):
    with pytest.raises(DataError, match="There is no SavedModel to serve in"):
        repository.start()
    put(1, "torn")
    with pytest.raises(DataError, match="No version in .* could be loaded"):
        repository.start()
