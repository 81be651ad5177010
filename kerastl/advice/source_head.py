"""The ImageNet classifier that belongs to a backbone, as a function of its embeddings."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

from kerastl.backbones.graph import Graph, Node, read_graph
from kerastl.backbones.table import BackboneSpec, file_with_top, parse_backbone
from kerastl.backbones.weight_files import load_file
from kerastl.backbones.weights import WEIGHTS_DIR, in_folder, in_keras_cache
from kerastl.errors import ArgumentError, WeightsError

SourceHead = Callable[[np.ndarray], np.ndarray]
_ROWS_AT_A_TIME = 1024


def source_head(
    backbone: str,
    weights: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
) -> SourceHead | None:
    """Return the ImageNet classifier of a backbone as a function of embeddings, or None.

    No image is looked at, and nothing is downloaded. The weights are read from the file with the
    top, under the name that Keras publishes: beside a file without top of its published name, or,
    for `"imagenet"`, in the folder that `KERASTL_WEIGHTS_DIR` names or in Keras' cache.

    Args:
        backbone: Name of `keras.applications`, as in `"MobileNet(alpha=0.75)"`.
        weights: What the backbone was built with: `"imagenet"`, or the path of a file.
        image_size: (height, width) that the backbone was built with; MobileNet and MobileNetV2 have
            weights for several. Default: its native one.

    Returns:
        A function from `(n, dim)` to float32 probabilities `(n, 1000)`. None when the file is not
        at hand or unfit, the weights are not those of ImageNet, or the classifier reads more than
        the mean over the places of the backbone's output (VGG, ConvNeXt).
    """
    spec = parse_backbone(backbone)
    native = (spec.record.image_size, spec.record.image_size)
    names = _files(spec, os.fspath(weights), image_size or native)
    file = next((path for path in names if path.is_file()), None)
    head = None if file is None else _head_of(spec, native, file)
    return None if head is None else _as_function(head, backbone)


def _files(spec: BackboneSpec, weights: str, size: tuple[int, int]) -> Iterator[Path]:
    """Possible places of the weight file with the top for this size."""
    name = spec.weights_file(size)
    if weights != "imagenet":
        native = spec.weights_file((spec.record.image_size, spec.record.image_size))
        if Path(weights).name in (name, native):
            yield Path(weights).with_name(file_with_top(Path(weights).name))
        return
    folder = os.environ.get(WEIGHTS_DIR)
    if folder:
        taken = in_folder(spec, size, Path(folder))
        name = taken.name if taken else name
        yield Path(folder) / file_with_top(name)
    yield from in_keras_cache(file_with_top(name))


def _head_of(spec: BackboneSpec, size: tuple[int, int], file: Path) -> keras.Model | None:
    """Return the network from the pooled features to the probabilities, or None.

    Whether there is one is seen on graphs without weights: VGG's would fill half a gigabyte.
    """
    with keras.StatelessScope(initialize_variables=False):
        if not _reads_the_mean(_build(spec, size, True), _build(spec, size, False)):
            return None
    whole = _build(spec, size, True)
    try:
        load_file(whole, file)
    except WeightsError:
        return None
    graph = read_graph(whole)
    pooled = graph.nodes[cast(int, _pooling(graph))].outputs[0]
    return keras.Model(pooled, whole.outputs[0])


def _build(spec: BackboneSpec, size: tuple[int, int], include_top: bool) -> keras.Model:
    builder = getattr(keras.applications, spec.record.name)
    return builder(
        include_top=include_top, weights=None, input_shape=(*size, 3), **dict(spec.arguments)
    )


def _reads_the_mean(whole: keras.Model, backbone: keras.Model) -> bool:
    """Whether a classifier is a function of the mean over the places of a backbone's output."""
    graph = read_graph(whole)
    below = graph.nodes[: _pooling(graph) or 0]
    return [_kind(node) for node in below] == [_kind(node) for node in read_graph(backbone).nodes]


def _pooling(graph: Graph) -> int | None:
    """Where the last mean over all places is taken."""
    kind = keras.layers.GlobalAveragePooling2D
    places = [at for at, node in enumerate(graph.nodes) if isinstance(node.operation, kind)]
    return places[-1] if places else None


def _kind(node: Node) -> tuple[str, Any]:
    return type(node.operation).__name__, tuple(node.outputs[0].shape[1:])


def _as_function(head: keras.Model, backbone: str) -> SourceHead:
    shape = tuple(head.inputs[0].shape[1:])

    def probabilities(embeddings: np.ndarray) -> np.ndarray:
        if embeddings.ndim != 2 or embeddings.shape[1] != shape[-1]:
            raise ArgumentError(
                f"`embeddings` of {backbone} must have the shape (n, {shape[-1]}). Received: "
                f"{embeddings.shape}. Take them from `extract_embeddings`."
            )
        rows = embeddings.astype("float32").reshape(-1, *shape)
        starts = range(0, len(rows), _ROWS_AT_A_TIME)
        parts = [head(rows[at : at + _ROWS_AT_A_TIME], training=False) for at in starts]
        found = [np.asarray(part, "float32") for part in parts]
        return (
            np.concatenate(found) if found else np.zeros((0, head.outputs[0].shape[-1]), "float32")
        )

    return probabilities
