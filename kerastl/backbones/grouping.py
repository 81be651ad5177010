"""Which cuts of a network end a stage: arithmetic on plain records."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

MAX_STAGES = 12
LIGHT = 0.02
BOTTLENECK_SHARE = 0.10
BOTTLENECK_BYTES = 0.5
HEAVY = 0.40
# A heavy stage is split where between these parts of its work lie before the split.
MIDDLE = (0.3, 0.7)


@dataclass(frozen=True)
class CutCost:
    """The cost of the network up to a cut, and the size of the tensors at the cut.

    Args:
        size: Spatial size of what passes, as in `(56, 56)`.
        bytes_per_image: Size of what passes in float16.
        macs: Multiply-adds from the input up to the cut.
        num_parameters: Parameters from the input up to the cut.
    """

    size: tuple[int, ...]
    bytes_per_image: int
    macs: int
    num_parameters: int


def group_cuts(costs: Sequence[CutCost]) -> list[int]:
    """Return the indices of the cuts that end a stage, the last cut included.

    A stage ends where a level of spatial size has done half its work or more and least has to
    pass; levels of little weight join the next; a narrow place before a wide end is an end of its
    own; a stage with most of the work is halved.

    Returns:
        Indices into `costs`, rising.
    """
    cuts = _Cuts(costs)
    ends: list[int] = []
    for start, last in _levels(cuts):
        ends.append(_level_end(cuts, ends[-1] if ends else -1, start, last))
    return _split_heavy(cuts, _add_bottlenecks(cuts, sorted(set(ends))))


class _Cuts:
    """Shares of the whole network between two cuts; index -1 is the input."""

    def __init__(self, costs: Sequence[CutCost]):
        self.costs = costs

    def work(self, start: int, end: int) -> float:
        macs = [cost.macs for cost in self.costs]
        return (macs[end] - (macs[start] if start >= 0 else 0)) / max(macs[-1], 1)

    def parameters(self, start: int, end: int) -> float:
        counts = [cost.num_parameters for cost in self.costs]
        return (counts[end] - (counts[start] if start >= 0 else 0)) / max(counts[-1], 1)

    def weight(self, start: int, end: int) -> float:
        return max(self.work(start, end), self.parameters(start, end))

    def cheapest(self, indices: Sequence[int]) -> int:
        """The cut that least passes through, the deepest on ties."""
        return min(indices, key=lambda i: (self.costs[i].bytes_per_image, -i))


def _levels(cuts: _Cuts) -> list[tuple[int, int]]:
    """First and last cut of each level of spatial size; a light level joins the next."""
    levels: list[tuple[int, int]] = []
    start = position = 0
    for _, level in groupby(cuts.costs, key=lambda cost: cost.size):
        position += len(list(level))
        if cuts.weight(start - 1, position - 1) >= LIGHT:
            levels.append((start, position - 1))
            start = position
    final = len(cuts.costs) - 1
    if start <= final:
        start = levels.pop()[0] if levels else start
        levels.append((start, final))
    return levels


def _level_end(cuts: _Cuts, before: int, start: int, last: int) -> int:
    """The cheapest cut of a level's deeper half; the last level ends at the output."""
    costs = cuts.costs
    if last == len(costs) - 1:
        return last
    below = costs[start - 1].macs if start else 0
    half, whole = (costs[last].macs + below) / 2, max(costs[last].macs - below, 1)
    # Cuts after the level that add no work, such as a pooling, count to it.
    deeper = [i for i in range(start, len(costs)) if half <= costs[i].macs <= costs[last].macs]
    end = cuts.cheapest(deeper)
    # Where the deeper half only widens (MobileNetV3), an earlier place that saves more than the
    # work it gives up.
    earlier = [
        i
        for i in range(start, end)
        if costs[i].bytes_per_image <= costs[end].bytes_per_image * BOTTLENECK_BYTES
        and costs[i].bytes_per_image / costs[end].bytes_per_image <= (costs[i].macs - below) / whole
        and cuts.weight(before, i) >= LIGHT
    ]
    return cuts.cheapest(earlier) if earlier else end


def _add_bottlenecks(cuts: _Cuts, ends: Sequence[int]) -> list[int]:
    ends = list(ends)
    # From the output back: a bottleneck found in a stage makes two, the first is looked at next.
    for end in reversed(ends):
        start = max((other for other in ends if other < end), default=-1)
        while (narrow := _bottleneck(cuts, start, end)) is not None and len(ends) < MAX_STAGES:
            ends.append(narrow)
            start = narrow
    return sorted(ends)


def _bottleneck(cuts: _Cuts, start: int, end: int) -> int | None:
    limit = cuts.costs[end].bytes_per_image * BOTTLENECK_BYTES
    narrow = [
        i
        for i in range(start + 1, end)
        if cuts.costs[i].bytes_per_image <= limit
        and cuts.weight(i, end) >= BOTTLENECK_SHARE
        and cuts.weight(start, i) >= BOTTLENECK_SHARE
    ]
    return cuts.cheapest(narrow) if narrow else None


def _split_heavy(cuts: _Cuts, ends: Sequence[int]) -> list[int]:
    ends = list(ends)
    while len(ends) < MAX_STAGES:
        stages = zip([-1, *ends], ends, strict=False)
        heavy = [(start, end) for start, end in stages if cuts.work(start, end) > HEAVY]
        middles = [middle for stage in heavy if (middle := _middle(cuts, *stage)) is not None]
        if not middles:
            break
        ends = sorted([*ends, middles[0]])
    return ends


def _middle(cuts: _Cuts, start: int, end: int) -> int | None:
    """The cheapest cut about the middle of a stage's work, the most central on ties."""
    whole = cuts.work(start, end)
    done = {i: cuts.work(start, i) / whole for i in range(start + 1, end)}
    central = [i for i, part in done.items() if MIDDLE[0] <= part <= MIDDLE[1]]
    if not central:
        return None
    return min(central, key=lambda i: (cuts.costs[i].bytes_per_image, abs(done[i] - 0.5), -i))
