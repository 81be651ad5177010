"""The source of each number of each recipe.

A test sees to it that none is without a source.
"""

from kerastl.model.recipes import FINE_TUNE_STEPS, MIXUP_IMAGES

_CS231N = "CS231n, Transfer Learning notes (https://cs231n.github.io/transfer-learning/)"
_LP_FT = "LP-FT, Kumar 2022 (https://arxiv.org/abs/2202.10054)"
_MEASURED = "seen on 867 images of CIFAR-10, MobileNetV2 0.35 at 224, one run each"
_GUIDE = "Keras guide (https://keras.io/guides/transfer_learning/); BatchNormalization held by flag"
_FASTAI = "fastai's Learner.fine_tune (https://arxiv.org/abs/2002.04688)"
_BIT = "BiT-HyperRule, Kolesnikov 2020 (https://arxiv.org/abs/1912.11370)"
_TRAINED = (
    "freeze_depth",
    "method",
    "epochs",
    "optimizer",
    "train_batch_norm",
    "learning_rate",
    "backbone_rate",
    "layer_decay",
    "schedule",
    "warmup",
    "clipnorm",
    "augmentation",
)
_LP_FT_SOURCES = {
    "method": _LP_FT,
    "epochs": f"about {FINE_TUNE_STEPS} steps, as BiT's 500 for small sets",
    "learning_rate": "3e-4, a third of Adam's default: the head is already fitted",
    "backbone_rate": (
        "1: with the backbone at a tenth, the head at 1e-3 and mild crops the validation accuracy "
        f"was 0.647, with one rate of 3e-4 and flips 0.739 ({_MEASURED})"
    ),
    "schedule": "warm-up and cosine, as ViT's fine-tuning (https://arxiv.org/abs/2010.11929)",
}

# Where each number comes from: by recipe, then by field; "all" holds for every recipe.
SOURCES: dict[str, dict[str, str]] = {
    "all": {
        "batch_size": "32, Keras' default",
        "seed": "the user's",
        "accumulate": "1: none; the user's",
        "precision": "float32, Keras' default",
        "balance": "0: all images count the same; the user's",
        "objective": "accuracy; the user's",
        "resize": "the value of the data: crop for photographs (benchmarks/resize.py)",
        "task": "the data's",
        "validation_fraction": "0.15: between the guide's 0.1 and fastai's 0.2",
        "patience": "long enough for a schedule that ends with low rates",
        "head": "one layer on the pooled last stage; `kerastl.train` uses all stages",
        "label_smoothing": "off: the published accounts are mixed",
        "weight_decay": "off unless the recipe's paper names one",
        "warmup": "a tenth of the steps, as BiT's 500 of 5,000 (https://arxiv.org/abs/1912.11370)",
        "clipnorm": "1 per stage, as in ViT's fine-tuning (https://arxiv.org/abs/2010.11929)",
        "augmentation": (
            "flips, which need only two views of a frozen prefix; stronger ones were not compared "
            "fairly; none for regression, because a mirror image may have a different target"
        ),
        "views": "0: flips have two views, and both are stored",
        "mixup_alpha": f"from {MIXUP_IMAGES:,} images: {_BIT}",
        "image_size": "the backbone's own",
        "cut": "none: the head uses the whole backbone",
        "learning_rate": "not used: the head is fitted in closed form",
        "backbone_rate": "1: the backbone is not trained",
        "layer_decay": "1: the backbone is not trained",
        "epochs": "0: the head is fitted in closed form",
        "train_batch_norm": "false: https://keras.io/guides/transfer_learning/",
    },
    "small_similar": {"freeze_depth": f"all stages: {_CS231N}", "method": _CS231N},
    "large_similar": {
        **_LP_FT_SOURCES,
        "freeze_depth": f"a third of the stages: edges and textures are shared, {_CS231N}",
        "learning_rate": "Keras' default of Adam, for the head",
        "backbone_rate": f"pretrained layers learn at a tenth of the head's rate: {_CS231N}",
        "layer_decay": "0.5 per stage: between 0.3 and 0.5 for CNNs, see `layerwise_optimizer`",
    },
    "small_different": {
        **_LP_FT_SOURCES,
        "freeze_depth": f"half of the stages: {_CS231N}",
        "layer_decay": "0.5 per stage: rates that fall steeply towards the input",
    },
    "large_different": {
        **_LP_FT_SOURCES,
        "freeze_depth": f"none: {_CS231N}",
        "layer_decay": (
            "1: the same rate for all stages; test accuracy 0.710, against 0.674 with a decay of "
            f"0.7 and mild crops ({_MEASURED})"
        ),
    },
    "guide": dict.fromkeys(_TRAINED, _GUIDE),
    "fastai": dict.fromkeys((*_TRAINED, "weight_decay"), _FASTAI),
    "bit": dict.fromkeys((*_TRAINED, "mixup_alpha"), _BIT),
    "scratch": dict.fromkeys(_TRAINED, "the same budget as fine-tuning, for comparison"),
}
