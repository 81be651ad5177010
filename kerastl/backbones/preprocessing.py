"""Preprocessing of raw RGB pixels, as one affine map of the channels."""

from collections.abc import Sequence
from dataclasses import dataclass

from kerastl.backbones.table import Mode

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Blue, green, red.
CAFFE_MEAN = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Preprocessing:
    """`(x[..., ::-1] if reverse_channels else x) * scale + offset`, for RGB pixels of 0-255.

    Args:
        scale: One factor, or one for each channel (after the reversal).
        offset: One summand, or one for each channel (after the reversal).
        reverse_channels: Whether the network wants BGR.
    """

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    reverse_channels: bool = False


_MODES: dict[Mode, Preprocessing] = {
    "none": Preprocessing(),
    "tf": Preprocessing(scale=1 / 127.5, offset=-1.0),
    "torch": Preprocessing(
        scale=tuple(1 / (255 * std) for std in IMAGENET_STD),
        offset=tuple(-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)),
    ),
    "caffe": Preprocessing(offset=tuple(-mean for mean in CAFFE_MEAN), reverse_channels=True),
}


def preprocessing_of(mode: Mode) -> Preprocessing:
    """Return what `preprocess_input` of a family of that mode does."""
    return _MODES[mode]


def efficientnet_file_preprocessing(mean: Sequence[float]) -> Preprocessing:
    """Return what stands in for a layer that EfficientNet has for `weights="imagenet"` alone.

    Keras then scales by r = 1/sqrt(std) after the network's Normalization; a network that reads
    the same file has no such layer. With n(x) = (x/255 - mean)/std, r * n(x) = n(x') for
    x' = r * x + 255 * mean * (1 - r), which is done to the pixels instead.

    Args:
        mean: Mean of the network's Normalization, one value a channel.
    """
    ratios = [std**-0.5 for std in IMAGENET_STD]
    offsets = [255 * m * (1 - r) for m, r in zip(mean, ratios, strict=True)]
    return Preprocessing(scale=tuple(ratios), offset=tuple(offsets))
