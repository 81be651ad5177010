"""Trains one network on several sets of images in turn; the last set is the goal."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from kerastl._task import DEFAULT_TASK, find_task
from kerastl.errors import ArgumentError, DataError
from kerastl.model.recipes import Recipe
from kerastl.results.lineage import ChainArm, compare_arms
from kerastl.results.report import write_report
from kerastl.results.run_files import Json, RunFiles
from kerastl.results.transfer import gradient_epochs
from kerastl.runs.chain_file import Chain, ChainStep, images_trained_on, with_budget
from kerastl.runs.run import Run
from kerastl.runs.run_lock import (
    is_finished,
    locked_run_directory,
    mark_done,
    read_plan,
    write_plan,
)
from kerastl.runs.settings import RunSettings
from kerastl.runs.telling import Tell, teller
from kerastl.runs.trackers import load_tracker
from kerastl.runs.training import TrainingJob

COMPARED = "compared"
STRAIGHT = "straight"
INTERMEDIATE = "large_different"  # opens all: a step of the head alone would hand on nothing
UNMOVED = (
    "step {!r} did not change the backbone (only the head was trained, or fine-tuning was "
    "not kept), so it has no effect. Use more epochs or images, or remove the step."
)


class _Step(NamedTuple):
    """A step that has been trained."""

    run: Run
    num_train: int
    moved: bool

    @property
    def recipe(self) -> Recipe:
        return Recipe.from_dict(self.run.metrics["recipe"])

    @property
    def seconds(self) -> float:
        return float(self.run.metrics["timing"]["total_seconds"])


def run_chain(
    chain: Chain,
    output: str | Path | None = None,
    *,
    compare: bool = True,
    resume: bool = False,
    track: str | None = None,
    verbose: bool | Tell = True,
) -> Run:
    """Train the steps of a chain, each from the backbone of the one before.

    Args:
        chain: of `read_chain`.
        output: folder of the chain, which gets a run directory a step. Default: the next free
            `runs/N`.
        compare: whether to train for the goal with fewer steps before it too, on the budget of the
            whole chain, to see what each step brought.
        resume: whether to continue the chain in `output`; finished steps are not repeated.
        track: `"mlflow"` or `"wandb"`: log the run of each step there, as `Run.track` does.
        verbose: whether to show progress on stderr, or a function that is told each line.

    Returns:
        The run of the last step; its `files.chain` tells what each step brought.
    """
    if track is not None:
        load_tracker(track)
    task = find_task(chain.steps[-1].task or DEFAULT_TASK)
    if compare and "probe" not in task.supports:
        raise ArgumentError(
            f"Chains are compared by the score of each image, which task={task.name!r} does not "
            "have. Use `--no-compare`, or compare=False."
        )
    tell = teller(verbose)
    with locked_run_directory(output, resume=resume) as directory:
        goal = directory / f"{len(chain.steps)}-{chain.steps[-1].name}"
        if resume and is_finished(directory, RunFiles.CHAIN):
            tell(f"The chain in {directory} is finished.")
            return Run(goal)
        asked = {**chain.to_dict(), "compare": compare}
        if read_plan(directory, asked) is None:
            write_plan(directory, asked, {})
        job = _ChainJob(chain, directory, tell)
        steps = job.train_steps()
        found = job.summary(steps)
        if compare:
            found |= job.compare(steps)
        run = steps[-1].run
        run.files.write(RunFiles.CHAIN, found)
        write_report(run.directory)
        RunFiles(directory).write(RunFiles.CHAIN, found)
        if track is not None:
            for step in steps:
                step.run.track(track)
        tell(str(run.files.path(RunFiles.REPORT)))
        mark_done(directory)
        return run


@dataclass(frozen=True)
class _ChainJob:
    """The training of a chain in a directory that is ours."""

    chain: Chain
    directory: Path
    tell: Callable[[str], None]

    def train_steps(self) -> list[_Step]:
        """Train each step in its folder, or read what was done there."""
        steps: list[_Step] = []
        plan = self.chain.steps
        for place, step in enumerate(plan):
            self.tell(f"Step {place + 1} of {len(plan)}, {step.name}: {step.data}")
            is_last = place + 1 == len(plan)
            if not is_last and step.scenario is None and step.recipe is None:
                step = replace(step, scenario=INTERMEDIATE)
            folder = self.directory / f"{place + 1}-{step.name}"
            steps.append(self._train(folder, step, self._start(steps)))
            if not is_last and not steps[-1].moved:
                self.tell(f"Warning: {UNMOVED.format(step.name)}")
        return steps

    def _start(self, before: list[_Step]) -> tuple[str, str]:
        """Return the backbone and the weights for the step after these steps."""
        if before:
            return str(before[-1].run.directory), ""
        return self.chain.backbone or "", self.chain.weights or ""

    def _train(
        self, folder: Path, step: ChainStep, start: tuple[str, str], recipe: Recipe | None = None
    ) -> _Step:
        """Train in a folder (by `recipe` in place of the step's), or read what was done there."""
        run = Run(folder)
        if not is_finished(folder):
            settings = RunSettings(
                data=step.data, test=step.test, on_bad=step.on_bad, options=step.options,
                backbone=start[0], weights=start[1],
                scenario=step.scenario or "", recipe=recipe, recipe_path=step.recipe,
                image_size=step.image_size, epochs=step.epochs, seed=self.chain.seed,
                task=step.task or "",
            )  # fmt: skip
            job = TrainingJob(settings, run.files, tell=self.tell)
            run = job.run(job.load())
        found = run.files.evaluation
        if found is None:
            raise DataError(
                f"{folder} has no evaluation.json any more. Remove this folder, and resume "
                "the chain."
            )
        moved = any(stage["moved"] for stage in found["moved"])
        return _Step(Run(folder), sum(found["data"]["counts"]["train"]), moved)

    def summary(self, steps: list[_Step]) -> Json:
        """Return `steps` and `warnings` of `chain.json`."""
        told = [
            {
                "name": plan.name,
                "run": str(step.run.directory),
                "data": plan.data,
                "recipe": step.recipe.name,
                "num_train": step.num_train,
                "moved": step.moved,
                "num_trained": images_trained_on(step.recipe, step.num_train),
                "measure": find_task(step.run.task).score.title,
                "score": step.run.metrics["test"][find_task(step.run.task).score.key],
                "num_test": step.run.metrics["test"]["num_images"],
                "seconds": step.seconds,
            }
            for plan, step in zip(self.chain.steps, steps, strict=True)
        ]
        unmoved = [step["name"] for step in told[:-1] if not step["moved"]]
        return {"steps": told, "warnings": [UNMOVED.format(name) for name in unmoved]}

    def compare(self, steps: list[_Step]) -> Json:
        """Train for the goal with fewer steps before it, on the budget of the whole chain."""
        num_trained = [images_trained_on(step.recipe, step.num_train) for step in steps]
        names = [step.name for step in self.chain.steps[:-1]]
        goal, recipe = self.chain.steps[-1], steps[-1].recipe
        # A step keeps the image size of the one before.
        sizes = [step.recipe.image_size for step in steps if step.recipe.image_size]
        arms = []
        for count in range(len(steps)):
            spent = sum(num_trained[:count])
            name = f"after {', '.join(names[:count])}" if count else STRAIGHT
            arm, longer = steps[-1], recipe
            if count < len(names):
                self.tell(f"For comparison: {goal.data} {name}")
                factor = (sum(num_trained) - spent) / num_trained[-1] if num_trained[-1] else 1
                first = steps[0].recipe
                start = self._start(steps[:count]) if count else (first.backbone, first.weights)
                size = sizes[-1] if sizes else None
                longer = replace(with_budget(recipe, factor), image_size=size)
                # The recipe holds what the step may set.
                step = replace(goal, scenario=None, recipe=None, epochs=None, image_size=None)
                folder = self.directory / COMPARED / f"{count}-{[STRAIGHT, *names][count]}"
                arm = self._train(folder, step, start, longer)
            phases = {phase.name for phase in longer.phases if phase.method == "gradient"}
            arms.append(
                ChainArm(
                    name=name,
                    run=str(arm.run.directory),
                    num_steps=count,
                    epochs=sum(row["phase"] in phases for row in arm.run.history),
                    most_epochs=gradient_epochs(longer),
                    num_trained=spent + images_trained_on(longer, arm.num_train),
                    seconds=arm.seconds,
                )
            )
        return {**compare_arms(arms, names), "same_budget": bool(num_trained[-1])}
