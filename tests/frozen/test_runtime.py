import pytest

from kerastl.errors import ArgumentError
from kerastl.frozen.runtime import FrozenRuntime, open_runtime
from kerastl.frozen.store import ActivationStore


def test_a_store_by_default_is_that_of_the_environment(cache, tmp_path):
    assert open_runtime("default").store.directory == cache
    assert open_runtime(None).store is None
    store = ActivationStore(tmp_path)
    assert open_runtime(store, "tensorflow", 8).store is store


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"store": "here"}, "`store` must be an ActivationStore, 'default' or None"),
        ({"store": None, "engine": "cuda"}, "`engine` must be one of"),
        ({"store": None, "batch_size": 0}, "`batch_size` must be an int of at least 1"),
    ],
)
def test_wrong_arguments_are_told(wrong, told):
    with pytest.raises(ArgumentError, match=told):
        open_runtime(**wrong)


def test_each_runtime_counts_for_itself():
    one, other = FrozenRuntime(None), FrozenRuntime(None)
    one.usage.images_found += 1
    assert other.usage.images_found == 0
