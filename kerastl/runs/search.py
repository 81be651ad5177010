"""A search for the freeze depth and the rate that ends in a run of the best trial."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from kerastl.backbones.given_models import OWN_WEIGHTS
from kerastl.distribute import resolve_strategy
from kerastl.errors import ArgumentError
from kerastl.results.run_files import RunFiles
from kerastl.runs.local_workers import local_workers
from kerastl.runs.plan import RunPlan
from kerastl.runs.run import Run
from kerastl.runs.run_lock import locked_run_directory
from kerastl.runs.settings import SearchSettings
from kerastl.runs.telling import Tell, silent, teller
from kerastl.runs.trackers import load_tracker
from kerastl.runs.training import TrainingJob
from kerastl.training.search import search
from kerastl.training.shared_tuner import Progress
from kerastl.training.workers import role_of_this_process

Table = AbstractContextManager[Callable[[Progress], None] | None]
"""What shows the trials so far, while it is entered: it gives a function that draws them."""


def run_search(
    settings: SearchSettings,
    output: str | Path | None = None,
    *,
    strategy: Any = None,
    resume: bool = False,
    table: Table | None = None,
    track: str | None = None,
    worker_command: Sequence[str] = (),
    verbose: bool | Tell = True,
) -> Run | None:
    """Search how much to freeze and at which rate to train; then train the best in full.

    Args:
        settings: what to search, and for which images.
        output: the run directory, which also keeps the trials. Default: the next free `runs/N`.
        strategy: None, `"mirrored"` or a `tf.distribute.Strategy` of one machine.
        resume: whether to go on with the search in `output`.
        table: shows the trials in place of lines on stderr.
        track: `"mlflow"` or `"wandb"`: log the finished run there, as `Run.track` does.
        worker_command: the program that calls this function again, as a worker.
        verbose: whether to show progress on stderr, or a function that is told each line.

    Returns:
        The run of the best trial, whose `files.trials` has the trials; None in a worker.
    """
    if track is not None:
        load_tracker(track)
    role = role_of_this_process()
    if role.name and output is None:
        raise ArgumentError("a search over several processes needs --output.")
    devices = None if strategy in (None, "none") else resolve_strategy(strategy)
    tell = silent if role.is_worker else teller(verbose)
    with locked_run_directory(output, resume=resume, writes=not role.is_worker) as directory:
        job = TrainingJob(settings, RunFiles(directory), devices, tell)
        images = job.load()
        count = 0 if role.name else settings.workers
        several = settings.more_backbones
        own = several and settings.weights == OWN_WEIGHTS  # which only the first may have
        with table or nullcontext() as draw, local_workers(count, directory, worker_command):
            result = search(
                images,
                [settings.backbone, *several] if several else settings.backbone,
                weights="imagenet" if own else settings.weights,
                image_size=settings.image_size,
                image_sizes=settings.image_sizes,
                head=settings.head_of(len(images.train)),
                tuner=settings.tuner,
                max_trials=settings.max_trials,
                budget=settings.budget,
                recipe=settings.recipe or settings.scenario,
                directory=directory,
                seed=settings.seed,
                strategy=devices,
                train_best=False,
                on_progress=draw,
                verbose=bool(verbose) and draw is None,
            )
        if role.is_worker:
            return None
        tell(result.summary())
        job.files.write(RunFiles.TRIALS, result.to_dict())
        run = job.train(images, RunPlan(recipe=result.recipe, diagnosis=result.diagnosis))
        if track is not None:
            run.track(track)
        return run
