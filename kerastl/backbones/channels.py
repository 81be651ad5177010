"""Widens a pretrained RGB network for images with other numbers of channels."""

import dataclasses

import numpy as np

from kerastl.backbones.loaded import LoadedBackbone
from kerastl.backbones.preprocessing import Preprocessing
from kerastl.backbones.saved_model_backbone import clone_at_size
from kerastl.data.options import RGB
from kerastl.errors import ArgumentError


def widen(loaded: LoadedBackbone, channels: int) -> LoadedBackbone:
    """Return a backbone whose first layer reads this number of channels.

    With k the mean over R, G and B of a kernel of that layer, each of N channels gets 3 k / N:
    where all channels are equal, the network answers as it does to that gray image in RGB, and
    where they differ, its activations keep their size. What it has learnt of colours is lost; the
    channels come to differ where the first stage trains.

    Args:
        loaded: of `load_backbone`.
        channels: from 1.

    Raises:
        ArgumentError: the network, or a layer of it, is made for other channels.
    """
    own = loaded.model.inputs[0].shape[-1]
    if own == channels:
        return loaded
    if own != RGB:
        raise ArgumentError(
            f"{loaded.name!r} takes images with {own} channels. Received: channels={channels}. "
            f"Load images with {own} channels, or use a network for RGB images, which kerastl "
            "widens."
        )
    rules = loaded.preprocessing
    scale, offset = (float(np.mean(value)) for value in (rules.scale, rules.offset))
    return dataclasses.replace(
        loaded,
        model=clone_at_size(loaded.model, channels=channels, weights=loaded.weights != "random"),
        preprocessing=Preprocessing(scale, offset),
    )
