"""`kerastl embed`: the codes of images at any layer, as a file for other programs and as a page."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerastl.cli import options
from kerastl.cli.console import print_json, print_table, say, start_tensorflow
from kerastl.errors import ArgumentError, BadFile, DataError

if TYPE_CHECKING:
    import numpy as np

    from kerastl.data.split import Split


def embed(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder, CSV, .npz or tfds:NAME; a picture.")
    ],
    output: Annotated[
        Path, typer.Option(help="File to write: .npz, .npy (with a .csv beside it) or .parquet.")
    ],
    backbone: options.Backbone = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of --backbone: imagenet (default), embedded, random or a file."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A run or a .keras file, in place of --backbone."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="LAYER", help="Such as fc2 of VGG16; default: the pooled top."),
    ] = None,
    pool: Annotated[str, typer.Option(help="Of maps: avg, max or none.")] = "avg",
    image_size: options.ImageSize = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write a page: map, neighbours, suspicious labels.")
    ] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Take all images in DATA, whatever its folders.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    on_bad: options.OnBad = "error",
    seed: Annotated[int, typer.Option(min=0, help="Of the page's map and samples.")] = 0,
    json: options.Json = False,
) -> None:
    """Write what a layer of a pretrained network, or of a run, makes of each image of DATA."""
    if run is not None and (backbone or weights):
        raise ArgumentError(
            "Give `--run` or `--backbone` with `--weights`, not both. Received: "
            f"--run {run} besides. A run has its backbone and its weights."
        )
    start_tensorflow()
    import numpy as np

    from kerastl.frozen.code_files import check_code_file, rows_of, write_codes
    from kerastl.frozen.codes import CodeSample, code_network, stream_codes
    from kerastl.results.code_page import sample_places, write_codes_page
    from kerastl.results.run_files import read_model
    from kerastl.runs.settings import choose_backbone

    check_code_file(output)
    if page is not None and page.exists():
        raise DataError(
            f"There is a file {str(page)!r} already. Name another `--page`, or remove it."
        )
    parts, class_names, skipped = _images(data, unlabelled, on_bad)
    num_images = sum(map(len, parts.values()))
    if page is not None and num_images < 2:
        raise DataError(
            f"A page compares images with one another. Received: {num_images} image in {data}. "
            "Leave `--page` out, or give more."
        )
    if run is not None:
        network = code_network(read_model(run), at, pool=pool, image_size=image_size)
        source = str(run)
    else:
        source, chosen = choose_backbone(backbone, weights)
        network = code_network(source, at, pool=pool, weights=chosen, image_size=image_size)
    rows, shape = rows_of(parts, class_names), network.output_shape[1:]
    places = sample_places(len(rows), math.prod(shape), seed) if page else np.arange(0)
    sample = CodeSample(places)
    output.parent.mkdir(parents=True, exist_ok=True)
    batches = stream_codes(network, list(parts.values()), batch_size=batch_size)
    write_codes(output, sample.passing(batches), rows, shape)
    found: dict[str, Any] = {
        "output": str(output),
        "model": source,
        "at": at,
        "pool": pool,
        "num_images": len(rows),
        "shape": list(shape),
        "rectified": sample.lowest >= 0,
        "zeros": sample.num_zeros / sample.num_values,
        "class_names": class_names,
        "skipped": [bad._asdict() for bad in skipped],
    }
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        found["page"] = write_codes_page(
            page,
            sample.codes,
            _subsets(parts, places),
            class_names=class_names,
            title=f"{at or 'The pooled top'} of {source}",
            num_images=len(rows),
            seed=seed,
        )
        for row in found["page"]["suspicious"]:
            row["index"] = int(places[row["index"]])  # among all images, not those of the page
    if json:
        print_json(found)
        return
    _print(found)


def _images(
    data: str, unlabelled: bool, on_bad: str
) -> "tuple[dict[str, Split], list[str], list[BadFile]]":
    """Return the parts of the images by their names, the class names, and what was left out."""
    if not unlabelled and _has_no_classes(Path(data)):
        say(f"There are no class folders in {data}: its images are taken without labels.")
        unlabelled = True
    if unlabelled:
        from kerastl.data.unlabelled import load_unlabelled

        split, skipped = load_unlabelled([data], on_bad=on_bad)
        for path, reason in skipped:
            say(f"Left out {path}: {reason}")
        return {"": split}, [], skipped
    from kerastl.data.load import load_data
    from kerastl.runs.training import tell_data

    images = load_data(data, test_fraction=0.0, validation_fraction=0.0, on_bad=on_bad)
    tell_data(images, say)
    parts = {"train": images.train, "validation": images.validation, "test": images.test}
    present = {name: split for name, split in parts.items() if split is not None and len(split)}
    return present, images.class_names, images.skipped


def _has_no_classes(path: Path) -> bool:
    """Whether a path is a picture, or a folder with no folders inside."""
    if path.is_file():
        return path.suffix.lower() not in (".csv", ".npz")
    return path.is_dir() and not any(inside.is_dir() for inside in path.iterdir())


def _subsets(parts: "dict[str, Split]", places: "np.ndarray") -> "list[Split]":
    """Return the images at these places, counted over all parts, part by part."""
    found, start = [], 0
    for split in parts.values():
        mine = places[(places >= start) & (places < start + len(split))]
        found.append(split.subset(mine - start))
        start += len(split)
    return found


def _print(found: dict[str, Any]) -> None:
    shape = " x ".join(map(str, found["shape"]))
    least = "all 0 or more (rectified)" if found["rectified"] else "some below 0 (not rectified)"
    rows = [
        ["layer", found["at"] or "the pooled top"],
        ["images", f"{found['num_images']:,}"],
        ["numbers an image", shape],
        ["of these", f"{least}, {found['zeros']:.0%} are 0"],
    ]
    page = found.get("page")
    if page and page["neighbours"]:
        measured = page["neighbours"]
        low, high = measured["interval"]
        rows += [
            [
                f"{measured['k']} neighbours name the class",
                f"{measured['accuracy']:.3f} ({low:.3f}-{high:.3f})",
            ],
            ["labels that look wrong", f"{len(page['suspicious']):,}"],
        ]
    if page:
        rows.append(["page", page["path"]])
    print_table(f"{found['output']}: codes of {found['model']}", ["", ""], rows)
