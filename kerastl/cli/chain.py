"""`kerastl chain`: the same network trained on one set of images after another."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, quiet_start, say, start_tensorflow
from kerastl.cli.train import EMBEDDED_BACKBONE, trained
from kerastl.cli.unfinished import CHAIN, begin, begun, finish, finished, working_on

if TYPE_CHECKING:
    from kerastl.model.recipes import Recipe
    from kerastl.training.chain import Chain, ChainStep

ARMS = "compared"
STRAIGHT = "straight"
INTERMEDIATE = "large_different"  # opens all: a step of the head alone would hand on nothing
UNMOVED = (
    "step {!r} left the backbone as it was (its head alone was trained, or no epoch of more was "
    "worth keeping), so it brings nothing. Give it more epochs or images, or leave it out."
)


class _Done(NamedTuple):
    """A run that has ended."""

    directory: Path
    metrics: dict[str, Any]
    num_train: int
    moved: bool


def chain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chain file (TOML).")],
    compare: Annotated[
        bool,
        typer.Option(help="Train for the goal with fewer steps too, to see what each brought."),
    ] = True,
    deterministic: options.Deterministic = True,
    output: options.Output = None,
    resume: options.Resume = False,
    json: Annotated[bool, typer.Option("--json", help="chain.json on stdout.")] = False,
) -> None:
    """Train one network on several sets of images in turn; the last set is the goal.

    FILE has `backbone`, `weights` and `seed`, and for each step a table [[step]] with `name` and
    `data`, and if wanted `test`, `scenario`, `recipe`, `epochs`, `image_size`, `on_bad`: options of
    `kerastl train`. Each step is a run in --output, and the next one starts from its backbone.

    A step before the last opens all stages unless told otherwise. At the end the goal is trained
    for without the steps before it too, and after each of them, with the same recipe for up to as
    many images as the whole chain may see. The report of the last run says what each step brought.
    A chain that was stopped goes on with --output and --resume.
    """
    with quiet_start():
        from kerastl.training.chain import read_chain

        plan = read_chain(file)
    start_tensorflow(deterministic=deterministic)
    with working_on(output, resume=resume) as directory:
        found = finished(directory, CHAIN) if resume else None
        if found is not None:
            say(f"The chain in {directory} is finished.")
        else:
            found = _run(plan, directory, compare)
            finish(directory)
    if json:
        print_json(found)
        return
    _print(found, directory)


def _run(plan: "Chain", directory: Path, compare: bool) -> dict[str, Any]:
    """Run the steps and what they are compared with; what is done already is not done again."""
    from kerastl.results.report import write_report
    from kerastl.results.run_directory import write_json

    about = {**plan.to_dict(), "compare": compare}
    if begun(directory, about) is None:
        begin(directory, about, {})
    done: list[_Done] = []
    for place, step in enumerate(plan.steps):
        say(f"Step {place + 1} of {len(plan.steps)}, {step.name}: {step.data}")
        start = _start(plan, done[:place])
        last = place + 1 == len(plan.steps)
        if not last and step.scenario is None and step.recipe is None:
            step = replace(step, scenario=INTERMEDIATE)
        done.append(_step(directory / f"{place + 1}-{step.name}", step, plan.seed, start))
        if not last and not done[-1].moved:
            say(f"Warning: {UNMOVED.format(step.name)}")
    goal = done[-1]
    told = [_told(step, each) for step, each in zip(plan.steps, done, strict=True)]
    found: dict[str, Any] = {
        "steps": told,
        "warnings": [UNMOVED.format(step["name"]) for step in told[:-1] if not step["moved"]],
    }
    if compare:
        found |= _compared(plan, directory, done)
    write_json(goal.directory / CHAIN, found)
    write_report(goal.directory)
    write_json(directory / CHAIN, found)
    say(f"{goal.directory / 'report.html'}")
    return found


def _start(plan: "Chain", before: list[_Done]) -> dict[str, Any]:
    """Return the backbone and weights after so many steps, as `trained` takes them."""
    if before:
        return {"backbone": str(before[-1].directory), "weights": None}
    backbone = plan.backbone
    if backbone is None and plan.weights == "embedded":
        backbone = EMBEDDED_BACKBONE
    return {"backbone": backbone, "weights": plan.weights}


def _step(
    folder: Path,
    step: "ChainStep",
    seed: int,
    start: dict[str, Any],
    recipe: Path | None = None,
) -> _Done:
    """Train in a folder, go on there, or read what was done there."""
    from kerastl.errors import DataError
    from kerastl.results.findings import read_findings

    metrics = finished(folder)
    if metrics is None:
        metrics = trained(
            folder, None, data=step.data, test=step.test, scenario=step.scenario,
            recipe=recipe or (Path(step.recipe) if step.recipe else None),
            image_size=step.image_size, epochs=step.epochs, seed=seed, on_bad=step.on_bad, **start,
        )  # fmt: skip
        finish(folder)
    findings = read_findings(folder)
    if findings is None:
        raise DataError(
            f"{folder} has lost its evaluation.json. Remove that folder, and resume the chain."
        )
    moved = any(stage["moved"] for stage in findings["moved"])
    return _Done(folder, metrics, sum(findings["data"]["counts"]["train"]), moved)


def _told(step: "ChainStep", done: _Done) -> dict[str, Any]:
    """Return what is said of a step."""
    from kerastl.model.recipes import Recipe
    from kerastl.training.chain import images_trained_on

    recipe = Recipe.from_dict(done.metrics["recipe"])
    test = done.metrics["test"]
    return {
        "name": step.name,
        "run": str(done.directory),
        "data": step.data,
        "recipe": recipe.name,
        "num_train": done.num_train,
        "moved": done.moved,
        "num_trained": images_trained_on(recipe, done.num_train),
        "accuracy": test["accuracy"],
        "num_test": test["num_images"],
        "seconds": done.metrics["timing"]["total_seconds"],
    }


def _compared(plan: "Chain", directory: Path, done: list[_Done]) -> dict[str, Any]:
    """Train for the goal with fewer steps before it, on the whole chain's budget."""
    from kerastl.model.recipes import Recipe
    from kerastl.results.lineage import Arm, compare_arms
    from kerastl.results.run_directory import write_json
    from kerastl.training.chain import images_trained_on, with_budget

    steps = [_told(step, each) for step, each in zip(plan.steps, done, strict=True)]
    recipe = Recipe.from_dict(done[-1].metrics["recipe"])
    budget = sum(step["num_trained"] for step in steps)
    names = [step.name for step in plan.steps[:-1]]
    sizes = [tuple(one) for each in done if (one := each.metrics["recipe"]["image_size"])]
    size = sizes[-1] if sizes else None  # a step keeps that of the step before
    arms = []
    for count in range(len(plan.steps)):
        spent = sum(step["num_trained"] for step in steps[:count])
        name = f"after {', '.join(names[:count])}" if count else STRAIGHT
        if count == len(names):
            arm, longer = done[-1], recipe
        else:
            say(f"To compare: {plan.steps[-1].data} {name}")
            factor = (budget - spent) / steps[-1]["num_trained"] if steps[-1]["num_trained"] else 1
            longer = replace(with_budget(recipe, factor), image_size=size)
            (directory / ARMS).mkdir(exist_ok=True)
            file = directory / ARMS / f"{count}.json"
            write_json(file, longer.to_dict())
            # The recipe holds what the step may set.
            goal = replace(plan.steps[-1], scenario=None, recipe=None, epochs=None, image_size=None)
            first = {key: done[0].metrics["recipe"][key] for key in ("backbone", "weights")}
            start = _start(plan, done[:count]) if count else first
            folder = directory / ARMS / f"{count}-{names[count - 1] if count else STRAIGHT}"
            arm = _step(folder, goal, plan.seed, start, recipe=file)
        arms.append(
            Arm(
                name, str(arm.directory), count, _epochs_run(arm.directory, longer),
                sum(p.epochs for p in longer.phases if p.method == "gradient"),
                spent + images_trained_on(longer, arm.num_train),
                arm.metrics["timing"]["total_seconds"],
            )
        )  # fmt: skip
    return {**compare_arms(arms, names), "same_budget": bool(steps[-1]["num_trained"])}


def _epochs_run(run: Path, recipe: "Recipe") -> int:
    """Return how many epochs of the phases that train by gradients were run."""
    from kerastl.results.run_facts import read_facts

    trained_by_gradients = {phase.name for phase in recipe.phases if phase.method == "gradient"}
    return sum(row["phase"] in trained_by_gradients for row in read_facts(run).history)


def _print(found: dict[str, Any], directory: Path) -> None:
    rows = [
        [step["name"], step["data"], step["recipe"], f"{step['accuracy']:.3f}",
         f"{step['seconds']:.0f}"]
        for step in found["steps"]
    ]  # fmt: skip
    print_table(str(directory), ["step", "data", "recipe", "test accuracy", "seconds"], rows)
    if "arms" not in found:
        return
    print_table(
        f"For {found['steps'][-1]['data']}, {found['num_images']} test images",
        ["trained", "accuracy", "95 %", "epochs", "of at most"],
        [
            [arm["name"], f"{arm['accuracy']:.3f}", "{:.3f}-{:.3f}".format(*arm["interval"]),
             str(arm["epochs"]), str(arm["most_epochs"])]
            for arm in found["arms"]
        ],
    )  # fmt: skip
    for brought in found["brought"]:
        say(f"{brought['step']} brought {points(brought)}")
    say(f"The chain against going straight: {points(found['paid'])} {found['paid']['verdict']}")


def points(found: dict[str, Any]) -> str:
    """Return a difference of accuracies with its interval as a sentence."""
    low, high = (100 * end for end in found["interval"])
    return f"{100 * found['difference']:+.1f} points ({low:+.1f} to {high:+.1f})."
