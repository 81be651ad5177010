"""Loads the newest version of a model, and watches for newer ones."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kerastl.errors import DataError
from kerastl.results.run_files import RunFiles, read_labels
from kerastl.serving.artifacts import SavedModel
from kerastl.serving.query import Outputs, Signature
from kerastl.serving.versions import FolderState, folder_state, versions_in, what_is_lacking

_logger = logging.getLogger(__name__)
_HIDDEN = "__saved_model_init_op"
_WARM_BATCHES = (1, 8)


class Version:
    """A loaded version, warmed up; its folder is named by its number."""

    def __init__(self, path: Path):
        self.number = int(path.name)
        self._model = SavedModel(path)
        self.task, self.answer = self._model.task, self._model.answer
        labels = path / RunFiles.LABELS
        self.class_names = read_labels(labels) if labels.exists() else None
        if None in self._model.size:
            raise DataError(
                f"{path} is a model for larger images, which takes one image per call, so it "
                "cannot be batched. Serve it with TensorFlow Serving, or export it without "
                "`--fully-convolutional`."
            )
        self.signatures = {}
        for name, function in self._model.signatures.items():
            if name != _HIDDEN:
                ((tensor, spec),) = function.structured_input_signature[1].items()
                shape = tuple(spec.shape[1:])
                self.signatures[name] = Signature(name, tensor, spec.dtype.name, shape)
        missing = {"serving_default", "serving_bytes"} - set(self.signatures)
        if missing:
            raise DataError(
                f"{path} has no signature {', '.join(sorted(missing))}. Export the model with "
                "`kerastl export`."
            )
        outputs = self._model.signatures["serving_bytes"].structured_outputs
        self.output_specs = {
            name: (spec.dtype.name, [-1 if n is None else n for n in spec.shape])
            for name, spec in sorted(outputs.items())
        }
        proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        described = proto.meta_graphs[0].signature_def
        self.signature_proto = {name: described[name] for name in described if name != _HIDDEN}
        self._warm_up()

    def run(self, signature: str, rows: np.ndarray) -> Outputs:
        """Return the outputs of a signature, each with as many rows."""
        return self._model.run(signature, **{self.signatures[signature].input: rows})

    def _warm_up(self) -> None:
        """Run all signatures, so that no client waits for the first time."""
        height, width = self._model.size
        encoded = tf.io.encode_jpeg(np.full((height, width, 3), 127, "uint8")).numpy()
        for signature in self.signatures.values():
            for count in _WARM_BATCHES:
                rows = np.zeros((count, *signature.shape), signature.dtype.replace("string", "O"))
                if signature.takes_bytes:
                    rows[:] = encoded
                outputs = self.run(signature.name, rows)
                if not all(np.isfinite(v).all() for v in outputs.values() if v.dtype.kind == "f"):
                    raise DataError(
                        "Its prediction for a gray image is not finite: the weights contain "
                        "NaN. Train it again, and export it."
                    )


@dataclass(eq=False)
class Repository:
    """The folder of the versions of one model, and the version that is served.

    Args:
        directory: the folder.
        load: makes a version of a path.
    """

    directory: Path
    load: Callable[[Path], Any] = Version
    failed: dict[int, FolderState] = field(default_factory=dict)
    """Versions that did not load, and what was in their folder."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.served: Any = None
        """The version that new requests get."""

    def start(self) -> None:
        """Load the newest version.

        Raises:
            DataError: there is none that loads.
        """
        if not versions_in(self.directory):
            raise DataError(
                f"There is no SavedModel in {self.directory}: no folder has a number as its "
                "name and contains saved_model.pb. Write one with `kerastl export`."
            )
        self.refresh()
        if self.served is None:
            raise DataError(f"No version in {self.directory} can be loaded; see the log above.")

    def refresh(self) -> bool:
        """Serve the newest version that loads; say whether it is another one than before.

        One that does not load, or is not there as a whole yet, is passed over until anything in
        its folder changes. The old version answers the requests that it has begun, and is freed
        after the last of them.
        """
        with self._lock:
            for number in reversed(versions_in(self.directory)):
                if self.served is not None and number == self.served.number:
                    return False
                version = self._try(number)
                if version is not None:
                    self.served = version
                    return True
            return False

    def _try(self, number: int) -> Any:
        path = self.directory / str(number)
        try:
            state = folder_state(path)
            if self.failed.get(number) == state:
                return None
            self.failed[number] = state
            if (lacking := what_is_lacking(path)) is not None:
                _logger.warning("Waiting for version %d: %s", number, lacking)
                return None
            version = self.load(path)
        except Exception as error:  # a damaged SavedModel raises all sorts, and others are served
            _logger.error("Version %d in %s was not loaded: %s", number, self.directory, error)
            return None
        del self.failed[number]
        return version
