"""The page about embeddings: a map, neighbours, and suspicious labels."""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerastl._atomic import atomic_write_text
from kerastl._checks import check_int
from kerastl.data.pixels import to_show
from kerastl.data.split import Split
from kerastl.errors import ArgumentError
from kerastl.frozen.code_files import CodeRows, rows_of
from kerastl.frozen.codes import Splits, listed_splits
from kerastl.results import neighbours as near
from kerastl.results.page_plots import map_key, map_plot
from kerastl.results.report import environment
from kerastl.results.run_files import Json

TEMPLATE = "codes.html.j2"
MOST_IMAGES = 10_000  # whose codes are compared, each with each
MOST_BYTES = 2**28  # that their codes take
MOST_ON_MAP = 3_000  # t-SNE then takes about 10 s; a page with a larger SVG scrolls slowly
NUM_SHOWN = 12  # images with their neighbours; labels that look wrong
MOST_LISTED = 100  # labels that look wrong, by path
THUMBNAIL = 112  # side in pixels
JPEG_QUALITY = 80


def write_codes_page(
    path: str | Path,
    codes: np.ndarray,
    split: Splits,
    *,
    class_names: Sequence[str] = (),
    title: str = "",
    num_images: int | None = None,
    suspicious: Sequence[int] | None = None,
    seed: int = 0,
) -> Json:
    """Write a page about embeddings: one HTML file without scripts and external files.

    The page shows a map (PCA, then t-SNE) and the nearest neighbours of some images. If all images
    have labels, it also shows the leave-one-out accuracy of the 5 nearest neighbours, and
    suspicious labels: images without a neighbour of the same class.

    Args:
        path: path of the HTML file; an existing file is replaced.
        codes: floats `(num_images, dim)`, as from `extract_codes`; at least 2.
        split: the images, as one split or several, in the same order.
        class_names: names of the labels.
        title: title of the page.
        num_images: total number of images, if `codes` is a sample. Default: all are in `codes`.
        suspicious: places of the images whose labels look wrong, in the order in which they are
            shown. Default: those without a neighbour of the same class.
        seed: random seed of the map and of the images that are shown.

    Returns:
        `path`, `num_images`, `neighbours` (as `neighbour_accuracy` returns it; None without
        labels) and `suspicious`: for each suspicious label its `index` in `codes`, `path`,
        `label`, and `votes`, the classes of the neighbours with their counts.

    Raises:
        ArgumentError: the codes and the images do not match.
        ExportError: the page cannot be written.

    Example:
        >>> codes = kerastl.extract_codes("VGG16", data.train, at="fc2")
        >>> kerastl.write_codes_page("codes.html", codes, data.train, class_names=data.class_names)
    """
    splits = listed_splits(split)
    rows = rows_of({str(place): part for place, part in enumerate(splits)}, class_names)
    if len(rows) != len(codes):
        raise ArgumentError(
            f"`codes` must have a row for each image. Received: {len(codes)} rows and "
            f"{len(rows)} images. Pass the split of these codes."
        )
    check_int("seed", seed, 0)
    page = _Page(codes, splits, rows, seed)
    if suspicious is not None:
        page.suspicious = list(suspicious)
    template = environment().get_template(TEMPLATE)
    text = template.render(
        title=title,
        codes=codes,
        num_images=len(codes) if num_images is None else num_images,
        rows=rows,
        key=page.key(),
        accuracy=page.accuracy,
        plot=page.plot(),
        most_on_map=MOST_ON_MAP,
        shown=page.cards(page.chosen()),
        suspicious=page.cards(page.suspicious[:NUM_SHOWN]),
        listed=[page.row(place) for place in page.suspicious[NUM_SHOWN:MOST_LISTED]],
        num_suspicious=len(page.suspicious),
        is_given=suspicious is not None,
        k=page.found.indices.shape[1],
        seed=seed,
    )
    atomic_write_text(path, text)
    return {
        "path": str(path),
        "num_images": len(codes),
        "neighbours": page.accuracy,
        "suspicious": [page.row(place) for place in page.suspicious],
    }


def sample_places(num_images: int, dim: int, seed: int = 0) -> np.ndarray:
    """Return the places of the images that a page compares, ascending; all where they are few."""
    most = max(2, min(num_images, MOST_IMAGES, MOST_BYTES // (4 * dim)))
    return _sample(num_images, most, seed)


def _sample(count: int, most: int, seed: int) -> np.ndarray:
    if most >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


class _Page:
    """What the page shows, found once."""

    def __init__(self, codes: np.ndarray, splits: Sequence[Any], rows: CodeRows, seed: int):
        self._codes, self._splits, self._rows, self._seed = codes, splits, rows, seed
        k = min(near.NUM_NEIGHBOURS, max(1, len(codes) - 1))
        self.found = near.nearest_neighbours(codes, k=k)
        self.accuracy: Json | None = None
        self.suspicious: list[int] = []
        if rows.class_names and (rows.labels >= 0).all():
            classes = len(rows.class_names)
            self.accuracy = near.neighbour_accuracy(rows.labels, self.found, classes)
            self.suspicious = near.suspicious_labels(rows.labels, self.found).tolist()

    def key(self) -> list[Json]:
        """The legend of the map: sign, name and number of images of each class."""
        names, labels = self._rows.class_names, self._rows.labels
        counts = np.bincount(labels[labels >= 0], minlength=len(names)).tolist()
        keys = [map_key(label) for label in range(len(names))]
        return [
            {"name": name, "count": count, "color": color, "sign": sign}
            for name, count, (color, sign) in zip(names, counts, keys, strict=True)
        ]

    def plot(self) -> Any:
        """The map of at most `MOST_ON_MAP` images; None of too few."""
        if len(self._codes) < near.FEWEST_ON_MAP:
            return None
        places = _sample(len(self._codes), MOST_ON_MAP, self._seed)
        points = near.map_codes(self._codes[places], seed=self._seed)
        return map_plot(points, self._rows.labels[places])

    def chosen(self) -> list[int]:
        """The images that are shown with their neighbours."""
        return _sample(len(self._codes), NUM_SHOWN, self._seed).tolist()

    def cards(self, places: Sequence[int]) -> list[Json]:
        """Each of these images with its neighbours, as pictures."""
        near_by = self.found.indices[list(places)] if places else np.zeros((0, 0), int)
        pictures = self._pictures(np.unique([*places, *near_by.ravel()]).astype(int))
        return [
            {
                **self.row(place),
                "picture": pictures[place],
                "neighbours": [
                    {**self.row(other), "picture": pictures[other], "distance": distance}
                    for other, distance in zip(
                        self.found.indices[place].tolist(),
                        self.found.distances[place].tolist(),
                        strict=True,
                    )
                ],
            }
            for place in places
        ]

    def row(self, place: int) -> Json:
        """What is known of an image."""
        others = self._rows.labels[self.found.indices[place]]
        names = [self._rows.class_names[label] for label in others if label >= 0]
        label = int(self._rows.labels[place])
        return {
            "index": int(place),
            "path": self._rows.paths[place] or f"image {place + 1}",
            "label": self._rows.class_names[label] if label >= 0 else "",
            "votes": {name: names.count(name) for name in dict.fromkeys(names)},
        }

    def _pictures(self, places: np.ndarray) -> dict[int, str]:
        """Small pictures of images by their places, as the addresses that hold them."""
        batches = (
            batch
            for split in subsets(self._splits, places)
            for batch in split.images(THUMBNAIL).as_numpy_iterator()
        )
        addresses = (_address(pixels) for batch in batches for pixels in batch)
        return dict(zip(places.tolist(), addresses, strict=True))


def subsets(splits: Iterable[Split], places: np.ndarray) -> list[Split]:
    """Return the images at ascending places, counted over all splits, split by split."""
    found, start = [], 0
    for split in splits:
        mine = places[(places >= start) & (places < start + len(split))]
        if len(mine):
            found.append(split.subset(mine - start))
        start += len(split)
    return found


def _address(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(to_show(pixels)).save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
