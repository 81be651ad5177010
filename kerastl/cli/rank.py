"""`kerastl rank`: compares backbones on labelled images."""

from dataclasses import asdict
from typing import Annotated

import typer

from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.data.options import DataOptions


@options.with_data_options
def rank(
    data: options.Data,
    backbones: Annotated[
        list[str], typer.Argument(metavar="BACKBONE...", help="Names; see `kerastl backbones`.")
    ],
    weights: Annotated[
        list[str] | None,
        options.in_model(
            metavar="NAME|FILE", help="imagenet, embedded or a file; one, or one per backbone."
        ),
    ] = None,
    image_size: options.ImageSize = None,
    max_images: options.MaxImages = 4000,
    on_bad: options.OnBad = "error",
    task: options.Task = "classification",
    seed: options.PlainSeed = 0,
    json: options.Json = False,
    *,
    how: DataOptions,
) -> None:
    """Compare backbones on your data, with one forward pass each.

    Example: kerastl rank photos/ MobileNetV2 EfficientNetV2B0
    """
    start_tensorflow()
    from kerastl.advice.rank import rank_backbones
    from kerastl.backbones.weights import resolve_name
    from kerastl.runs.telling import load_told

    for name in backbones:
        resolve_name(name)
    images = load_told(data, say, how, seed=seed, on_bad=on_bad, task=task)
    files = weights or ["imagenet"]
    with step("Running each backbone once"):
        ranked = rank_backbones(
            images, backbones, weights=files[0] if len(files) == 1 else files,
            image_size=image_size, max_images=max_images, seed=seed,
        )  # fmt: skip
    if json:
        print_json({"backbones": [asdict(backbone) for backbone in ranked]})
        return
    rows = [
        [each.name, f"{each.probe_score:.3f}", f"{each.standard_error:.3f}",
         "" if each.imagenet_top1 is None else f"{each.imagenet_top1:.3f}",
         f"{each.num_parameters / 1e6:.1f}", f"{1000 * each.seconds_per_image:.1f}"]
        for each in ranked
    ]  # fmt: skip
    columns = ["name", "probe", "its error", "ImageNet top-1", "M parameters", "ms an image"]
    print_table("Best first", columns, rows)
