"""What the store was good for, counted over a run."""

from dataclasses import dataclass


@dataclass
class StoreReport:
    """Counts what came from the store, over all the calls that it is given to.

    Args:
        images_found: Views of images that were in the store.
        images_derived: Views that were computed from activations of an earlier layer.
        images_computed: Views that were computed from pixels.
        images_stored: Views that a later call will find.
        seconds: Time that the calls took.
        seconds_saved: Time that it had taken to compute what was found.
        engine: The engine that ran last.
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
