"""The 40 builders of `keras.applications`, and ours, as a literal table of frozen records."""

import ast
import fnmatch
import re
from dataclasses import dataclass
from typing import Any, Literal

from kerastl._checks import did_you_mean
from kerastl.errors import ArgumentError

Mode = Literal["tf", "caffe", "torch", "none"]
Argument = bool | int | float
Arguments = tuple[tuple[str, Argument], ...]

ALEXNET = "https://arxiv.org/abs/1404.5997"
CONVNEXT = "https://arxiv.org/abs/2201.03545"
DENSENET = "https://arxiv.org/abs/1608.06993"
EFFICIENTNET = "https://arxiv.org/abs/1905.11946"
EFFICIENTNET_V2 = "https://arxiv.org/abs/2104.00298"
INCEPTION_RESNET = "https://arxiv.org/abs/1602.07261"
INCEPTION_V3 = "https://arxiv.org/abs/1512.00567"
MOBILENET = "https://arxiv.org/abs/1704.04861"
MOBILENET_V2 = "https://arxiv.org/abs/1801.04381"
MOBILENET_V3 = "https://arxiv.org/abs/1905.02244"
NASNET = "https://arxiv.org/abs/1707.07012"
RESNET = "https://arxiv.org/abs/1512.03385"
RESNET_V2 = "https://arxiv.org/abs/1603.05027"
VGG = "https://arxiv.org/abs/1409.1556"
XCEPTION = "https://arxiv.org/abs/1610.02357"


@dataclass(frozen=True)
class Backbone:
    """One builder, of `keras.applications` but for AlexNet.

    Args:
        name: Its name, spelt as Keras spells it.
        mode: What its ImageNet weights expect of 0-255 RGB pixels: `"tf"` (-1 to 1), `"caffe"`
            (BGR, mean taken off), `"torch"` (standardised), `"none"` (built into the network).
        image_size: Side of the images that the weights were trained at, in pixels.
        weights_file: Published name of the file without top; the braces are filled by
            `BackboneSpec.weights_file`. Empty where there is none.
        imagenet_top1: Accuracy on ImageNet that Keras publishes, 0 to 1.
        paper: Address of the paper.
        minimum_size: Smallest side that the network takes, in pixels.
        arguments: Names and defaults of the builder's own arguments.
        weights_sizes: Sides that have a file of their own; the last serves every other side.
    """

    name: str
    mode: Mode
    image_size: int
    weights_file: str
    imagenet_top1: float | None
    paper: str
    minimum_size: int = 32
    arguments: Arguments = ()
    weights_sizes: tuple[int, ...] = ()


_NO_TOP = re.compile(r"_no_?top(_v2)?\.h5$")
_TF_FILE = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
_V3_FILE = "{minimalistic}_224_{alpha}_float_no_top_v2.h5"
_V3_ARGUMENTS: Arguments = (("alpha", 1.0), ("minimalistic", False), ("dropout_rate", 0.2))

# Accuracies: https://keras.io/api/applications, and the MobileNetV3 page's own table.
BACKBONES: tuple[Backbone, ...] = (
    Backbone("ConvNeXtBase", "none", 224, "convnext_base_notop.h5", 0.853, CONVNEXT),
    Backbone("ConvNeXtLarge", "none", 224, "convnext_large_notop.h5", 0.863, CONVNEXT),
    Backbone("ConvNeXtSmall", "none", 224, "convnext_small_notop.h5", 0.823, CONVNEXT),
    Backbone("ConvNeXtTiny", "none", 224, "convnext_tiny_notop.h5", 0.813, CONVNEXT),
    Backbone("ConvNeXtXLarge", "none", 224, "convnext_xlarge_notop.h5", 0.867, CONVNEXT),
    Backbone("DenseNet121", "torch", 224, f"densenet121{_TF_FILE}", 0.750, DENSENET),
    Backbone("DenseNet169", "torch", 224, f"densenet169{_TF_FILE}", 0.762, DENSENET),
    Backbone("DenseNet201", "torch", 224, f"densenet201{_TF_FILE}", 0.773, DENSENET),
    Backbone("EfficientNetB0", "none", 224, "efficientnetb0_notop.h5", 0.771, EFFICIENTNET),
    Backbone("EfficientNetB1", "none", 240, "efficientnetb1_notop.h5", 0.791, EFFICIENTNET),
    Backbone("EfficientNetB2", "none", 260, "efficientnetb2_notop.h5", 0.801, EFFICIENTNET),
    Backbone("EfficientNetB3", "none", 300, "efficientnetb3_notop.h5", 0.816, EFFICIENTNET),
    Backbone("EfficientNetB4", "none", 380, "efficientnetb4_notop.h5", 0.829, EFFICIENTNET),
    Backbone("EfficientNetB5", "none", 456, "efficientnetb5_notop.h5", 0.836, EFFICIENTNET),
    Backbone("EfficientNetB6", "none", 528, "efficientnetb6_notop.h5", 0.840, EFFICIENTNET),
    Backbone("EfficientNetB7", "none", 600, "efficientnetb7_notop.h5", 0.843, EFFICIENTNET),
    Backbone("EfficientNetV2B0", "none", 224, "efficientnetv2-b0_notop.h5", 0.787, EFFICIENTNET_V2),
    Backbone("EfficientNetV2B1", "none", 240, "efficientnetv2-b1_notop.h5", 0.798, EFFICIENTNET_V2),
    Backbone("EfficientNetV2B2", "none", 260, "efficientnetv2-b2_notop.h5", 0.805, EFFICIENTNET_V2),
    Backbone("EfficientNetV2B3", "none", 300, "efficientnetv2-b3_notop.h5", 0.820, EFFICIENTNET_V2),
    Backbone("EfficientNetV2L", "none", 480, "efficientnetv2-l_notop.h5", 0.857, EFFICIENTNET_V2),
    Backbone("EfficientNetV2M", "none", 480, "efficientnetv2-m_notop.h5", 0.853, EFFICIENTNET_V2),
    Backbone("EfficientNetV2S", "none", 384, "efficientnetv2-s_notop.h5", 0.839, EFFICIENTNET_V2),
    Backbone(
        "InceptionResNetV2",
        "tf",
        299,
        f"inception_resnet_v2{_TF_FILE}",
        0.803,
        INCEPTION_RESNET,
        minimum_size=75,
    ),
    Backbone(
        "InceptionV3", "tf", 299, f"inception_v3{_TF_FILE}", 0.779, INCEPTION_V3, minimum_size=75
    ),
    Backbone(
        "MobileNet",
        "tf",
        224,
        "mobilenet_{alpha_digits}_{size}_tf_no_top.h5",
        0.704,
        MOBILENET,
        arguments=(("alpha", 1.0), ("depth_multiplier", 1), ("dropout", 0.001)),
        weights_sizes=(128, 160, 192, 224),
    ),
    Backbone(
        "MobileNetV2",
        "tf",
        224,
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5",
        0.713,
        MOBILENET_V2,
        arguments=(("alpha", 1.0),),
        weights_sizes=(96, 128, 160, 192, 224),
    ),
    Backbone(
        "MobileNetV3Large",
        "none",
        224,
        f"weights_mobilenet_v3_large{_V3_FILE}",
        0.756,
        MOBILENET_V3,
        arguments=_V3_ARGUMENTS,
    ),
    Backbone(
        "MobileNetV3Small",
        "none",
        224,
        f"weights_mobilenet_v3_small{_V3_FILE}",
        0.681,
        MOBILENET_V3,
        arguments=_V3_ARGUMENTS,
    ),
    Backbone("NASNetLarge", "tf", 331, "nasnet_large_no_top.h5", 0.825, NASNET),
    Backbone("NASNetMobile", "tf", 224, "nasnet_mobile_no_top.h5", 0.744, NASNET),
    Backbone("ResNet101", "caffe", 224, f"resnet101{_TF_FILE}", 0.764, RESNET),
    Backbone("ResNet101V2", "tf", 224, f"resnet101v2{_TF_FILE}", 0.772, RESNET_V2),
    Backbone("ResNet152", "caffe", 224, f"resnet152{_TF_FILE}", 0.766, RESNET),
    Backbone("ResNet152V2", "tf", 224, f"resnet152v2{_TF_FILE}", 0.780, RESNET_V2),
    Backbone("ResNet50", "caffe", 224, f"resnet50{_TF_FILE}", 0.749, RESNET),
    Backbone("ResNet50V2", "tf", 224, f"resnet50v2{_TF_FILE}", 0.760, RESNET_V2),
    Backbone("VGG16", "caffe", 224, f"vgg16{_TF_FILE}", 0.713, VGG),
    Backbone("VGG19", "caffe", 224, f"vgg19{_TF_FILE}", 0.713, VGG),
    Backbone("Xception", "tf", 299, f"xception{_TF_FILE}", 0.790, XCEPTION, minimum_size=71),
)

# Builders of kerastl, without published weights.
OWN: tuple[Backbone, ...] = (Backbone("AlexNet", "torch", 224, "", None, ALEXNET, minimum_size=63),)
# What stands before a preset of KerasHub, as in "hub:resnet_18_imagenet".
HUB = "hub:"

_BY_NAME = {record.name: record for record in BACKBONES + OWN}


@dataclass(frozen=True)
class BackboneSpec:
    """A builder with the arguments that differ from its defaults; `str()` spells it.

    Args:
        record: The builder's row of the table.
        arguments: Names and values, in the order of the builder's signature.
    """

    record: Backbone
    arguments: Arguments = ()

    def __str__(self) -> str:
        listed = ", ".join(f"{name}={value!r}" for name, value in self.arguments)
        return f"{self.record.name}({listed})" if listed else self.record.name

    def weights_file(self, image_size: tuple[int, int], *, include_top: bool = False) -> str:
        """Return the published name of the ImageNet weights for images of (height, width)."""
        values = dict(self.record.arguments) | dict(self.arguments)
        alpha = float(values.get("alpha", 1.0))
        height, width = image_size
        sizes = self.record.weights_sizes or (None,)
        name = self.record.weights_file.format(
            alpha=alpha,
            alpha_digits="_".join(f"{alpha:.2f}".replace(".", "").lstrip("0")[:2]),
            minimalistic="_minimalistic" if values.get("minimalistic") else "",
            size=height if height == width and height in sizes else sizes[-1],
        )
        return file_with_top(name) if include_top else name


def builder_of(name: str) -> Backbone | None:
    """Return the builder that names its models so, as `mobilenetv2_0.35_224`; None for others."""
    plain = re.sub(r"_\d\.\d+_\d+$", "", name).replace("_", "").replace("-", "").lower()
    names = {record.name.lower(): record for record in BACKBONES}
    return {"nasnet": _BY_NAME["NASNetMobile"], **names}.get(plain)


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names of the backbones that match a shell pattern, sorted.

    Args:
        pattern: shell pattern, such as `"ResNet*"`; case-sensitive.

    Returns:
        Names of `keras.applications`, as Keras writes them, and `"AlexNet"`.

    Example:
        >>> list_backbones("VGG*")
        ['VGG16', 'VGG19']
    """
    return sorted(name for name in _BY_NAME if fnmatch.fnmatchcase(name, pattern))


def is_hub(name: str) -> bool:
    """Return whether a name is that of a preset of KerasHub."""
    return name.startswith(HUB)


def parse_backbone(spec: str) -> BackboneSpec:
    """Parse a name such as `"MobileNetV2(alpha=0.35)"`.

    Args:
        spec: A name of `list_backbones()`, with the builder's own arguments as keywords if need
            be. The size, the weights and the preprocessing are given elsewhere.

    Returns:
        The builder's record and its arguments; defaults are left out.

    Raises:
        ArgumentError: When the name or an argument is not known, or is no literal.

    Example:
        >>> str(parse_backbone("MobileNetV2(alpha=1)"))
        'MobileNetV2'
    """
    name, keywords = _parse_call(spec)
    if name not in _BY_NAME:
        raise ArgumentError(
            "`backbone` must be a name of keras.applications or a Functional keras.Model. "
            f"Received: backbone={spec!r}.{did_you_mean(name, _BY_NAME)} "
            f"`kerastl.list_backbones()` lists all {len(_BY_NAME)}; a KerasHub preset starts "
            f"with {HUB!r}."
        )
    record = _BY_NAME[name]
    given = {key: _check_argument(record, key, value) for key, value in keywords.items()}
    changed = [
        (key, given[key]) for key, default in record.arguments if given.get(key, default) != default
    ]
    return BackboneSpec(record, tuple(changed))


def _parse_call(spec: str) -> tuple[str, dict[str, object]]:
    try:
        tree = ast.parse(spec.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
            return tree.func.id, {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError, AttributeError, MemoryError, RecursionError):
        pass
    raise ArgumentError(
        "`backbone` must be written as in 'MobileNetV2' or 'MobileNetV2(alpha=0.35)': a name, "
        "and numbers or True/False by keyword. Received: "
        f"backbone={spec!r}.{did_you_mean(spec, _BY_NAME)}"
    )


def _check_argument(record: Backbone, name: str, value: Any) -> Argument:
    defaults = dict(record.arguments)
    if name not in defaults:
        takes = ", ".join(f"`{key}`" for key in defaults) or "no argument"
        raise ArgumentError(
            f"{record.name} takes {takes}. Received: {name}={value!r}."
            f"{did_you_mean(name, defaults)} Size, weights, pooling and preprocessing are set by "
            "kerastl: use `image_size=` and `weights=` beside the backbone."
        )
    wanted = type(defaults[name])
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or (wanted is not bool and not 0 <= value < float("inf")):
        raise ArgumentError(
            f"`{name}` of {record.name} must be a {wanted.__name__} like {defaults[name]!r}. "
            f"Received: {name}={value!r}"
        )
    return value


def file_with_top(name: str) -> str:
    """Return the published name of the weights with top that belong to those without.

    Example:
        >>> file_with_top("mobilenet_7_5_224_tf_no_top.h5")
        'mobilenet_7_5_224_tf.h5'
    """
    return _NO_TOP.sub(".h5", name)
