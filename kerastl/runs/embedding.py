"""Writes embeddings of images at a layer, and a page about them."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from kerastl.data.load import load_data
from kerastl.data.options import DataOptions, usual_resize
from kerastl.data.split import Split
from kerastl.data.tables import ENDINGS
from kerastl.data.unlabelled import load_unlabelled
from kerastl.errors import BadFile, DataError
from kerastl.frozen.code_files import rows_of, write_codes
from kerastl.frozen.codes import CodeSample, code_network, stream_codes
from kerastl.results.code_page import sample_places, subsets, write_codes_page
from kerastl.results.run_files import Json, read_model
from kerastl.runs.run import Run
from kerastl.runs.settings import choose_backbone
from kerastl.runs.telling import tell_data


class ImagesForCodes(NamedTuple):
    """Images with their labels, if they have any: the parts by their names."""

    parts: dict[str, Split]
    class_names: list[str]
    skipped: list[BadFile]

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))


def load_for_codes(
    data: str,
    *,
    run: Path | None,
    unlabelled: bool,
    on_bad: str,
    options: DataOptions,
    tell: Callable[[str], None],
) -> ImagesForCodes:
    """Load images, without labels if requested or if there are no class folders.

    Pixels are read as those of the run, if there is one.
    """
    options = options if run is None else Run(run).reading(options)
    if not unlabelled and _has_no_classes(Path(data)):
        tell(f"There are no class folders in {data}, so kerastl uses its images without labels.")
        unlabelled = True
    if unlabelled:
        options = replace(options, resize=options.resize or usual_resize(has_one_class=True))
        split, skipped = load_unlabelled([data], on_bad=on_bad, rules=options.rules)
        for path, reason in skipped:
            tell(f"Left out {path}: {reason}")
        return ImagesForCodes({"": split}, [], skipped)
    images = load_data(
        data, test_fraction=0.0, validation_fraction=0.0, on_bad=on_bad, **options.to_dict()
    )
    tell_data(images, tell)
    parts = {"train": images.train, "validation": images.validation, "test": images.test}
    present = {name: split for name, split in parts.items() if split is not None and len(split)}
    return ImagesForCodes(present, images.class_names, images.skipped)


def _has_no_classes(path: Path) -> bool:
    """Whether a path is a picture, or a folder with no folders inside."""
    if path.is_file():
        return path.suffix.lower() not in (*ENDINGS, ".npz")
    return path.is_dir() and not any(inside.is_dir() for inside in path.iterdir())


def network_for_codes(
    run: Path | None,
    backbone: str | None,
    weights: str | None,
    at: str | None,
    pool: str,
    image_size: int | None,
) -> tuple[keras.Model, str]:
    """Return the network to a layer of a run, or else of a backbone; and what it is of."""
    if run is not None:
        return code_network(read_model(run), at, pool=pool, image_size=image_size), str(run)
    name, chosen = choose_backbone(backbone, weights)
    return code_network(name, at, pool=pool, weights=chosen, image_size=image_size), name


def check_page(page: Path | None, num_images: int = 2) -> None:
    """Raise a `DataError` if there is such a page already, or there are not two images for it."""
    if page is not None and page.exists():
        raise DataError(
            f"The file {str(page)!r} exists already. Choose another `--page`, or remove the file."
        )
    if page is not None and num_images < 2:
        raise DataError(
            f"A page needs at least two images. Received: {num_images} image. Leave out "
            "`--page`, or pass more images."
        )


def write_image_codes(
    network: keras.Model,
    images: ImagesForCodes,
    output: Path,
    page: Path | None = None,
    *,
    title: str,
    batch_size: int = 32,
    seed: int = 0,
) -> Json:
    """Write the codes of all images in bounded memory, and a page about a sample of them if wanted.

    The network is that of `code_network`; the seed is of the sample and of the map on the page.
    Return what was written, as plain values.
    """
    rows, shape = rows_of(images.parts, images.class_names), network.output_shape[1:]
    places = sample_places(len(rows), math.prod(shape), seed) if page else np.arange(0)
    sample = CodeSample(places)
    output.parent.mkdir(parents=True, exist_ok=True)
    batches = stream_codes(network, list(images.parts.values()), batch_size=batch_size)
    write_codes(output, sample.passing(batches), rows, shape)
    found: Json = {
        "num_images": len(rows),
        "shape": list(shape),
        "rectified": sample.lowest >= 0,
        "zeros": sample.num_zeros / sample.num_values,
        "class_names": images.class_names,
        "skipped": [bad._asdict() for bad in images.skipped],
    }
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        found["page"] = write_codes_page(
            page,
            sample.codes,
            subsets(images.parts.values(), places),
            class_names=images.class_names,
            title=title,
            num_images=len(rows),
            seed=seed,
        )
        for row in found["page"]["suspicious"]:
            row["index"] = int(places[row["index"]])  # among all images, not those of the page
    return found
