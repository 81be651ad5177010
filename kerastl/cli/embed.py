"""`kerastl embed`: saves the embeddings of a layer as a file and as a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kerastl._steps import step
from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.data.options import DataOptions
from kerastl.errors import ArgumentError


@options.with_data_options
def embed(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Labelled images, as for train, or one image.")
    ],
    output: Annotated[Path, options.to_path(help="A .npz, .npy (with a .csv) or .parquet file.")],
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    run: Annotated[
        Path | None,
        options.in_model(metavar="RUN", help="Run or .keras file, instead of --backbone."),
    ] = None,
    at: Annotated[
        str | None,
        options.in_model(metavar="LAYER", help="Layer, such as fc2; default: the pooled last one."),
    ] = None,
    pool: Annotated[
        str, options.in_model(**options.choice("avg", "max", "none"), help="Pooling.")
    ] = "avg",
    image_size: options.ImageSize = None,
    page: Annotated[
        Path | None,
        options.in_output(help="Also write a page: map, neighbours, suspicious labels."),
    ] = None,
    unlabelled: Annotated[
        bool, options.in_data("--unlabelled", help="Use all images, without labels.")
    ] = False,
    batch_size: Annotated[int, options.advanced(min=1, metavar="N", help="Images per step.")] = 32,
    on_bad: options.OnBad = "error",
    seed: options.PlainSeed = 0,
    json: options.Json = False,
    *,
    how: DataOptions,
) -> None:
    """Save the embeddings of a layer for every image.

    Example: kerastl embed photos/ --backbone VGG16 --at fc2 --output codes.npz
    """
    if run is not None and (backbone or weights):
        raise ArgumentError(
            f"Pass `--run`, or `--backbone` and `--weights`, not both. Received: --run {run} as "
            "well. A run has its own backbone and weights."
        )
    start_tensorflow()
    from kerastl.frozen.code_files import check_code_file
    from kerastl.runs import embedding

    check_code_file(output)
    embedding.check_page(page)
    with step("Reading the images"):
        images = embedding.load_for_codes(
            data, run=run, unlabelled=unlabelled, on_bad=on_bad, options=how, tell=say
        )
    embedding.check_page(page, len(images))
    network, source = embedding.network_for_codes(run, backbone, weights, at, pool, image_size)
    with step("Running the network"):
        written = embedding.write_image_codes(
            network, images, output, page,
            title=f"{at or 'The pooled top'} of {source}", batch_size=batch_size, seed=seed,
        )  # fmt: skip
    found = {"output": str(output), "model": source, "at": at, "pool": pool, **written}
    if json:
        print_json(found)
        return
    _print(found)


def _print(found: Mapping[str, Any]) -> None:
    least = "all 0 or more (rectified)" if found["rectified"] else "some below 0 (not rectified)"
    rows = [
        ["layer", found["at"] or "the pooled top"],
        ["images", f"{found['num_images']:,}"],
        ["numbers an image", " x ".join(map(str, found["shape"]))],
        ["of these", f"{least}, {found['zeros']:.0%} are 0"],
    ]
    if page := found.get("page"):
        if measured := page["neighbours"]:
            value = "{:.3f} ({:.3f}-{:.3f})".format(measured["accuracy"], *measured["interval"])
            rows.append([f"accuracy of {measured['k']} neighbours", value])
            rows.append(["suspicious labels", f"{len(page['suspicious']):,}"])
        rows.append(["page", page["path"]])
    print_table(f"{found['output']}: codes of {found['model']}", ["", ""], rows)
