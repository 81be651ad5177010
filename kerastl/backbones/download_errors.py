"""Why ImageNet weights cannot be had: which file, at which step, and the ways out."""

from collections.abc import Sequence
from pathlib import Path

from kerastl.backbones.table import BackboneSpec

_KERAS_MISMATCH = "Incomplete or corrupted file detected"  # what Keras' check of its hash says


def missing_weights_message(
    spec: BackboneSpec,
    error: Exception,
    *,
    file: str,
    folder: str,
    caches: Sequence[Path],
    embedded: str,
) -> str:
    """Return the text of the error.

    Args:
        spec: The backbone whose weights were asked for.
        error: What Keras raised.
        file: The published name of the file.
        folder: Where it was looked for before Keras was asked, as it is told.
        caches: Where Keras keeps the file, first where it should.
        embedded: The backbone of which kerastl has weights of its own.
    """
    ways_out = (
        "give a file with `weights='path/to/file.h5'`, or ask for `weights='embedded'` (with "
        f"{embedded!r}) or `weights='random'`."
    )
    if _KERAS_MISMATCH in str(error):
        return (
            f"ImageNet weights of {spec} cannot be had: {file!r} was downloaded to "
            f"{str(caches[0].parent)!r}, but what arrived is cut or changed. Keras says: {error} "
            f"Try again, which downloads it anew, put the file there by hand, {ways_out}"
        )
    cached = next((path for path in caches if path.is_file()), None)
    if cached is not None:
        return (
            f"ImageNet weights of {spec} cannot be had: {str(cached)!r} is there, but reading it "
            f"failed ({error}). A download that broke off? Remove that file, so that it is "
            f"downloaded anew, {ways_out}"
        )
    if isinstance(error, ValueError):
        return (
            f"There are no ImageNet weights for {spec} that fit. Keras says: {error} "
            "Choose other arguments, give a file with `weights='path/to/file.h5'`, or ask for "
            "`weights='random'`."
        )
    return (
        f"ImageNet weights of {spec} cannot be had: no file {file!r} in {folder}, none in Keras' "
        f"cache {str(caches[0].parent)!r}, and the download failed ({error}).\n"
        f"Put the file into one of these folders, {ways_out}"
    )
