import inspect
import re
import subprocess
import sys

import keras
import pytest

from kerastl.backbones.table import BACKBONES, OWN, list_backbones, parse_backbone
from kerastl.errors import ArgumentError

NOT_OURS = {
    "include_top",
    "weights",
    "input_tensor",
    "input_shape",
    "pooling",
    "classes",
    "classifier_activation",
    "name",
    "include_preprocessing",
}
MOBILENETS = [
    ("MobileNet", 224),
    ("MobileNet(alpha=0.25)", 128),
    ("MobileNet(alpha=0.5)", 160),
    ("MobileNet(alpha=0.75)", 192),
    ("MobileNetV2(alpha=0.35)", 96),
    ("MobileNetV2(alpha=0.5)", 100),
    ("MobileNetV2(alpha=1)", 128),
    ("MobileNetV2(alpha=1.4)", 224),
    ("MobileNetV3Small(alpha=0.75)", 224),
    ("MobileNetV3Large(minimalistic=True)", 64),
]
each_backbone = pytest.mark.parametrize("record", BACKBONES, ids=lambda record: record.name)
# One of each way in which Keras names a file, quick to build; the others at about a second each.
FIRST_BUILT = (
    "ConvNeXtTiny",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "ResNet50",
    "VGG16",
    "Xception",
)


class AskedForError(Exception):
    pass


def builder(name):
    return getattr(keras.applications, name)


@pytest.fixture
def asked_file(monkeypatch):
    """Return the file name that a builder asks for, without building its weights."""

    def refuse(name, *args, **kwargs):
        raise AskedForError(name)

    def asked(spec, size):
        build = builder(spec.record.name)
        monkeypatch.setattr(
            sys.modules[keras.applications.VGG16.__module__].file_utils, "get_file", refuse
        )
        with (
            keras.StatelessScope(initialize_variables=False),
            pytest.raises(AskedForError) as caught,
        ):
            build(include_top=False, input_shape=(size, size, 3), **dict(spec.arguments))
        keras.utils.clear_session()
        return str(caught.value)

    return asked


def test_the_table_holds_every_builder_of_keras_once():
    builders = [name for name in dir(keras.applications) if inspect.isfunction(builder(name))]
    assert [record.name for record in BACKBONES] == sorted(builders)
    assert len(BACKBONES) == 40


@each_backbone
def test_arguments_are_those_of_the_builder(record):
    parameters = inspect.signature(builder(record.name)).parameters.values()
    own = tuple((p.name, p.default) for p in parameters if p.name not in NOT_OURS)
    assert record.arguments == own


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(r, id=r.name, marks=() if r.name in FIRST_BUILT else pytest.mark.slow)
        for r in BACKBONES
    ],
)
def test_published_file_is_what_keras_asks_for(record, asked_file):
    # Built at the smallest size, which shows that the network takes it.
    size = record.minimum_size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        asked = asked_file(parse_backbone(record.name), size)
    assert parse_backbone(record.name).weights_file((size, size)) == asked


@pytest.mark.parametrize(("text", "size"), MOBILENETS)
def test_published_file_depends_on_the_arguments(text, size, asked_file, monkeypatch):
    monkeypatch.setattr("warnings.warn", lambda *args, **kwargs: None)
    spec = parse_backbone(text)
    assert spec.weights_file((size, size)) == asked_file(spec, size)


@each_backbone
def test_keras_refuses_less_than_the_minimum_size(record):
    side = record.minimum_size - 1
    with pytest.raises(ValueError, match="at least"):
        builder(record.name)(weights=None, include_top=False, input_shape=(side, side, 3))


def test_sizes_are_those_that_keras_checks(monkeypatch):
    """All but those of MobileNetV3, which checks without the function that the others share."""

    def refuse(input_shape, default_size, min_size, **options):
        raise AskedForError(default_size, min_size)

    shared = sys.modules[keras.applications.VGG16.__module__].imagenet_utils
    monkeypatch.setattr(shared, "obtain_input_shape", refuse)
    records = [record for record in BACKBONES if not record.name.startswith("MobileNetV3")]
    assert len(records) == 38
    for record in records:
        with pytest.raises(AskedForError) as caught:
            builder(record.name)(weights=None)
        assert caught.value.args == (record.image_size, record.minimum_size), record.name


def test_the_paper_is_the_one_that_keras_names():
    for record in BACKBONES:
        identifier = record.paper.removeprefix("https://arxiv.org/abs/")
        assert re.fullmatch(r"\d{4}\.\d{4,5}", identifier), record.name
        assert re.search(rf"arxiv\.org/(abs|pdf)/{identifier}\b", builder(record.name).__doc__)


@pytest.mark.parametrize(
    "names",
    [
        "ConvNeXtTiny ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge",
        "DenseNet121 DenseNet169 DenseNet201",
        " ".join(f"EfficientNetB{index}" for index in range(8)),
        "EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3",
        "EfficientNetV2S EfficientNetV2M EfficientNetV2L",
        "InceptionV3 InceptionResNetV2",
        "MobileNet MobileNetV2 MobileNetV3Large",
        "MobileNetV3Small MobileNetV3Large",
        "NASNetMobile NASNetLarge",
        "ResNet50 ResNet101 ResNet152",
        "ResNet50V2 ResNet101V2 ResNet152V2",
    ],
)
def test_the_larger_of_a_family_are_more_accurate(names):
    accuracies = [parse_backbone(name).record.imagenet_top1 for name in names.split()]
    assert accuracies == sorted(set(accuracies))


@pytest.mark.parametrize(
    ("name", "top1"),
    [("MobileNetV3Small", 0.681), ("VGG16", 0.713), ("ResNet50", 0.749), ("ConvNeXtXLarge", 0.867)],
)
def test_accuracies_are_those_of_the_page_of_keras(name, top1):
    assert parse_backbone(name).record.imagenet_top1 == top1
    assert 0.681 <= min(record.imagenet_top1 for record in BACKBONES)
    assert max(record.imagenet_top1 for record in BACKBONES) <= 0.867


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("VGG*", ["VGG16", "VGG19"]),
        ("ResNet50", ["ResNet50"]),
        ("*V3Small", ["MobileNetV3Small"]),
        ("resnet*", []),
    ],
)
def test_list_backbones(pattern, names):
    assert list_backbones(pattern) == names


def test_list_backbones_lists_all_by_default():
    assert list_backbones() == sorted(record.name for record in (*OWN, *BACKBONES))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("MobileNetV2", "MobileNetV2"),
        (" MobileNetV2 ( alpha = 0.35 ) ", "MobileNetV2(alpha=0.35)"),
        ("MobileNetV2(alpha=1)", "MobileNetV2"),
        ("MobileNet(dropout=0, alpha=0.5)", "MobileNet(alpha=0.5, dropout=0.0)"),
        ("MobileNetV3Small(minimalistic=True)", "MobileNetV3Small(minimalistic=True)"),
        ("ResNet50()", "ResNet50"),
    ],
)
def test_parse_backbone(text, canonical):
    assert str(parse_backbone(text)) == canonical
    assert parse_backbone(canonical) == parse_backbone(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet50", "Did you mean 'ResNet50'"),
        ("MobileNetV4", r"lists all 41"),
        ("MobileNetV2(alfa=0.5)", "MobileNetV2 takes `alpha`. Received: alfa=0.5. Did you mean"),
        ("ResNet50(alpha=0.5)", "ResNet50 takes no argument"),
        ("ConvNeXtTiny(include_preprocessing=False)", "Size, weights, pooling and preprocessing"),
        ("MobileNetV2(weights='imagenet')", "use `image_size=` and `weights=`"),
        ("MobileNetV2(alpha='a')", "must be a float like 1.0. Received: alpha='a'"),
        ("MobileNetV2(alpha=-1)", "must be a float like 1.0. Received: alpha=-1.0"),
        ("MobileNetV3Small(minimalistic=1)", "must be a bool like False"),
        ("MobileNet(depth_multiplier=1.5)", "must be a int like 1"),
        ("MobileNetV2(0.35)", "must be written as in"),
        ("MobileNetV2(alpha=", "must be written as in"),
        ("MobileNetV2(alpha=__import__('os'))", "must be written as in"),
        ("MobileNetV2(**{'alpha': 1})", "takes `alpha`"),
        ("os.system('true')", "must be written as in"),
        ("", "must be written as in"),
    ],
)
def test_what_cannot_be_meant_says_what_would_do(text, message):
    with pytest.raises(ArgumentError) as caught:
        parse_backbone(text)
    assert message in str(caught.value)


def test_the_table_does_not_import_tensorflow():
    code = "import sys, kerastl.backbones.table; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
