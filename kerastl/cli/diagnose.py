"""`kerastl diagnose`: measures the transfer-learning scenario and recommends a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.data.options import DataOptions

if TYPE_CHECKING:
    from kerastl.advice.advise import Advice


@options.with_data_options
def diagnose(
    data: options.Data,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    image_size: options.ImageSize = None,
    image_sizes: options.ImageSizes = None,
    max_images: options.MaxImages = 4000,
    plot: Annotated[Path | None, options.in_output(help="Save figures (.png, .svg).")] = None,
    on_bad: options.OnBad = "error",
    task: options.Task = "classification",
    seed: options.PlainSeed = 0,
    json: options.Json = False,
    *,
    how: DataOptions,
) -> None:
    """Measure which transfer-learning scenario applies, and recommend what to train.

    The command trains nothing.

    Example: kerastl diagnose photos/ --backbone MobileNetV2
    """
    sizes = options.checked_sizes(image_sizes, image_size)
    start_tensorflow()
    from kerastl.advice import advise, diagnosis
    from kerastl.runs.plan import diagnosis_to_dict
    from kerastl.runs.settings import choose_backbone
    from kerastl.runs.telling import load_told

    name, weights = choose_backbone(backbone, weights)
    images = load_told(data, say, how, seed=seed, on_bad=on_bad, task=task)
    with step("Comparing the images with the pretraining data"):
        found = diagnosis.diagnose(
            name, images, weights=weights, image_size=image_size, image_sizes=sizes,
            max_images=max_images, seed=seed,
        )  # fmt: skip
    advice = advise.advise(found, backbone=name, weights=weights, seed=seed)
    if plot is not None:
        found.plot().savefig(plot)
        say(f"Figures: {plot}")
    if json:
        print_json(diagnosis_to_dict(found, advice))
        return
    say(str(found))
    say("")
    _print_advice(advice)


def _print_advice(advice: "Advice") -> None:
    rows = [[r.name, r.value, r.why, r.otherwise] for r in advice.reasons]
    print_table("Advice", ["", "value", "why", "otherwise"], rows)
    gains = [[name, f"{100 * gain:+.1f}"] for name, gain in advice.alternatives]
    print_table("Expected gain over training the head only", ["", "points"], gains)
