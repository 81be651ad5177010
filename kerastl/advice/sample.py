"""A stratified sample of a split."""

from kerastl._task import Task
from kerastl.data.partition import stratified_split
from kerastl.data.split import Split


def sample_of(task: Task, split: Split, max_images: int, seed: int) -> Split:
    """Return a split, or a stratified sample of it where it has more than `max_images`."""
    if len(split) <= max_images:
        return split
    groups = task.stratification_groups(split.labels)
    _, chosen = stratified_split(groups, max_images / len(split), seed)
    return split.subset(chosen)
