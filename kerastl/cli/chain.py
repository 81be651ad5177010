"""`kerastl chain`: trains one network on several sets of images in turn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl.cli.console import print_json, print_table, quiet_start, say, start_tensorflow
from kerastl.cli.options import Deterministic, Json, Output, Resume, Track, in_training
from kerastl.cli.stop import stopping_in_order


def chain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Chain file (TOML).")],
    compare: Annotated[bool, in_training(help="Also train the goal with fewer steps.")] = True,
    deterministic: Deterministic = True,
    output: Output = None,
    resume: Resume = False,
    track: Track = None,
    json: Json = False,
) -> None:
    """Train one network on several sets of images in turn.

    FILE sets `backbone`, `weights` and `seed`, and has a table [[step]] for each step with `name`
    and `data`. A step can also set `test`, `scenario`, `recipe`, `epochs`, `image_size` and
    `on_bad`, as in `kerastl train`, and has a table `options` for options that read the data, such
    as `bit_depth`. Each step writes a run in --output, and the next step starts from its backbone.
    The last set is the goal.

    By default, earlier steps train all stages. At the end, the goal is also trained without the
    earlier steps and after each of them; the page of the last run compares the results.

    Example: kerastl chain steps.toml --output runs/chain
    """
    with quiet_start():
        from kerastl.runs.chain_file import read_chain

        steps = read_chain(file)
    start_tensorflow(deterministic=deterministic)
    from kerastl.runs.chain import run_chain

    with stopping_in_order(output, resume=resume) as directory:
        run = run_chain(steps, directory, compare=compare, resume=resume, track=track, verbose=say)
    found = run.files.chain or {}
    if json:
        print_json(found)
        return
    _print(found, run.directory.parent)


def _print(found: Mapping[str, Any], directory: Path) -> None:
    from kerastl.results import lineage

    steps = map(lineage.step_cells, found["steps"])
    print_table(str(directory), lineage.STEP_COLUMNS, [*steps])
    if "arms" in found:
        title = f"For {found['steps'][-1]['data']}, {found['num_images']} test images"
        print_table(title, lineage.ARM_COLUMNS, [*map(lineage.arm_cells, found["arms"])])
        for sentence in lineage.sentences_of(found):
            say(sentence)
