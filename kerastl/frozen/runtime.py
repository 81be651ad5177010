"""`FrozenRuntime`: the engine, devices and store for frozen stages."""

from dataclasses import dataclass, field
from typing import Any, Literal

from kerastl._checks import check_choice, check_int, check_tensorflow
from kerastl.errors import ArgumentError
from kerastl.frozen.engines import ENGINES
from kerastl.frozen.store import ActivationStore

StoreChoice = ActivationStore | Literal["default"] | None


@dataclass
class StoreUsage:
    """Counts what came from the store, over all the calls that it is given to.

    Args:
        images_found: views of images that were in the store.
        images_derived: views that were computed from activations of an earlier layer.
        images_computed: views that were computed from pixels.
        images_stored: views that a later call will find.
        seconds: time that the calls took.
        seconds_saved: time that it had taken to compute what was found.
        engine: the engine that ran last.
    """

    images_found: int = 0
    images_derived: int = 0
    images_computed: int = 0
    images_stored: int = 0
    seconds: float = 0.0
    seconds_saved: float = 0.0
    engine: str | None = None

    @property
    def from_store(self) -> bool:
        """Whether something was found, and nothing had to be computed from pixels."""
        return self.images_found > 0 and not self.images_computed


@dataclass(frozen=True)
class FrozenRuntime:
    """Runs frozen stages once: engine, store and devices in one object.

    Args:
        store: keeps the outputs of frozen stages; None keeps nothing between calls.
        engine: `"auto"` (default), `"tensorflow"`, `"openvino"` or `"litert"`; see `make_engine`.
        batch_size: images a step, at least 1. Default 32.
        usage: counts what came from the store.
        strategy: its devices share each batch (engine "tensorflow"). Several machines all make the
            same calls; where the folder of their stores is one, each runs its share of the images.
            Default: one device.

    Example:
        >>> runtime = open_runtime("default", batch_size=64)
        >>> embeddings = kerastl.extract_embeddings(model, data.train, runtime=runtime)
        >>> runtime.usage.images_found
        1000
    """

    store: ActivationStore | None
    engine: str = "auto"
    batch_size: int = 32
    usage: StoreUsage = field(default_factory=StoreUsage)
    strategy: Any = None

    def __post_init__(self) -> None:
        check_int("batch_size", self.batch_size, 1)
        check_choice("engine", self.engine, ENGINES)


def open_runtime(
    store: StoreChoice, engine: str = "auto", batch_size: int = 32, strategy: Any = None
) -> FrozenRuntime:
    """Return the runtime for the arguments of a public call.

    `store` is an `ActivationStore`, `"default"` for that of `KERASTL_CACHE_DIR`, or None.
    """
    check_tensorflow("Running images through a frozen network")
    if isinstance(store, str) and store == "default":
        store = ActivationStore()
    if store is not None and not isinstance(store, ActivationStore):
        raise ArgumentError(
            f"`store` must be an ActivationStore, 'default' or None. Received: store={store!r}. "
            "Write `kerastl.frozen.store.ActivationStore(directory)` for a folder."
        )
    return FrozenRuntime(store, engine, batch_size, strategy=strategy)
