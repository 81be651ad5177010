"""What a user of torch runs on the images of `peers.py`: fastai and timm, in their environment.

The network is timm's `mobilenetv2_035` with TensorFlow's padding, and Keras' weights by name.

    ENVIRONMENT/bin/python benchmarks/peers_torch.py '{"peer": "timm", "images": ..., ...}'
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

SIZE, BATCH_SIZE = 224, 32
FASTAI_EPOCHS = 8  # the issue that asks for this comparison names `fine_tune(8)`
TIMM_EPOCHS, RATE, LAYER_DECAY, WEIGHT_DECAY = 10, 1e-3, 0.75, 0.05
SCALE = {"mean": [0.5] * 3, "std": [0.5] * 3}  # Keras' -1 to 1


def body(options: dict[str, Any], **changes: Any) -> nn.Module:
    """Return the network without its classifier, or with a new one, with Keras' weights."""
    network = timm.create_model(
        "mobilenetv2_035", pad_type="same", bn_eps=1e-3, num_classes=0, **changes
    )
    with np.load(options["weights"]) as weights:
        state = {name: torch.from_numpy(weights[name]) for name in weights.files}
    found = network.load_state_dict(state, strict=False)
    strangers = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if strangers or found.unexpected_keys:
        raise SystemExit(f"Weights without a place: {strangers}, {found.unexpected_keys}")
    return network


def check(options: dict[str, Any]) -> dict[str, Any]:
    """Return how far the pooled outputs are from those of Keras, relative to their largest."""
    with np.load(options["sample"]) as sample:
        x, expected = torch.from_numpy(sample["x"].transpose(0, 3, 1, 2)), sample["y"]
    with torch.inference_mode():
        y = body(options).eval()(x / 127.5 - 1).numpy()
    return {"difference": float(np.abs(y - expected).max() / np.abs(expected).max())}


def fastai(options: dict[str, Any]) -> dict[str, Any]:
    """`vision_learner(dls, arch).fine_tune(8)`, with the readers of fastai's quick start."""
    from fastai.vision.all import (
        ImageDataLoaders,
        Learner,
        Normalize,
        Resize,
        accuracy,
        create_head,
        get_image_files,
        params,
        set_seed,
    )
    from fastai.vision.learner import apply_init

    set_seed(options["seed"])
    loaders = ImageDataLoaders.from_folder(
        options["images"], train="train", valid="val", item_tfms=Resize(SIZE), bs=BATCH_SIZE,
        batch_tfms=Normalize.from_stats(*SCALE.values(), cuda=False),
    )  # fmt: skip
    network = body(options, global_pool="")
    head = create_head(network.num_features, loaders.c)
    apply_init(head, nn.init.kaiming_normal_)
    learner = Learner(
        loaders, nn.Sequential(network, head), metrics=accuracy,
        splitter=lambda model: [params(model[0]), params(model[1])],
    )  # fmt: skip
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1 if options["smoke"] else FASTAI_EPOCHS)
        files = get_image_files(Path(options["images"]) / "test")
        shares, _ = learner.get_preds(dl=loaders.test_dl(files))
    labels = [loaders.vocab.o2i[file.parent.name] for file in files]
    return counted(shares.argmax(1).numpy() == np.array(labels))


def plain_timm(options: dict[str, Any]) -> dict[str, Any]:
    """A training script as timm's own: AdamW with layer decay, cosine, warm-up, smoothed labels."""
    from timm.data import create_transform
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    torch.manual_seed(options["seed"])
    training = create_transform(
        SIZE, is_training=True, scale=(0.35, 1.0), color_jitter=None, **SCALE
    )
    plain = create_transform(SIZE, crop_pct=0.875, **SCALE)
    loaders = {
        part: DataLoader(
            ImageFolder(f"{options['images']}/{part}", training if part == "train" else plain),
            BATCH_SIZE, shuffle=part == "train", num_workers=2,
        )
        for part in ("train", "val", "test")
    }  # fmt: skip
    network = body(options)
    network.reset_classifier(len(loaders["train"].dataset.classes))
    optimizer = create_optimizer_v2(
        network, "adamw", lr=RATE, weight_decay=WEIGHT_DECAY, layer_decay=LAYER_DECAY
    )
    epochs = 1 if options["smoke"] else TIMM_EPOCHS
    schedule = CosineLRScheduler(optimizer, epochs, warmup_t=1, warmup_lr_init=1e-5)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    best, kept = -1, network.state_dict()
    for epoch in range(epochs):
        schedule.step(epoch)
        network.train()
        for x, y in loaders["train"]:
            optimizer.zero_grad()
            loss(network(x), y).backward()
            optimizer.step()
        reached = right(network, loaders["val"])["right"]
        if reached >= best:
            best, kept = reached, {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(kept)
    return right(network, loaders["test"])


def right(network: nn.Module, loader: Any) -> dict[str, int]:
    """Return of how many of the images the class was named."""
    network.eval()
    with torch.inference_mode():
        return counted([bool(one) for x, y in loader for one in network(x).argmax(1) == y])


def counted(right: Any) -> dict[str, int]:
    return {"right": int(sum(right)), "tested": len(right)}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    peer = {"check": check, "fastai": fastai, "timm": plain_timm}[asked["peer"]]
    Path(asked["report"]).write_text(json.dumps(peer(asked)))
