"""Networks of KerasHub, and AlexNet, on handwritten digits.

    pip install 'kerastl[hub]'
    python examples/other_zoos.py

needs no network and takes about three minutes on two cores. With one, a preset of KerasHub is a
backbone by its name, and brings its weights and its preprocessing:

    kerastl train flowers/ --backbone hub:resnet_18_imagenet
    kerastl.build_transfer_model("hub:vit_base_patch16_224_imagenet", num_classes=5)
    kerastl.build_transfer_model("hub:hf://timm/resnet18.a1_in1k", num_classes=5)

Here the networks are made from configurations and learn from scratch. Expected, test accuracy over
seeds 0-2: ResNet 0.92-0.98, vision transformer 0.76-0.92, AlexNet 0.92-0.97.

`--smoke` trains on 100 images for one epoch, to see that it runs.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import keras_hub
import numpy as np
from sklearn.datasets import load_digits

import kerastl


def load(seed: int, num_images: int) -> object:
    # scikit-learn's digits are 8 x 8 with values 0-16; kerastl takes raw pixels, 0-255.
    digits = load_digits()
    pixels = np.uint8(digits.images * (255 / 16))
    return kerastl.load_data((pixels[:num_images], digits.target[:num_images]), seed=seed)


def write_presets(folder: Path) -> list[str]:
    """Write a ResNet and a vision transformer as KerasHub does, and return their names."""
    converter = {"scale": 1 / 127.5, "offset": -1.0}
    resnet = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    )
    resnet.save_to_preset(folder / "resnet")
    keras_hub.layers.ResNetImageConverter(**converter).save_to_preset(folder / "resnet")
    vit = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128
    )
    vit.save_to_preset(folder / "vit")
    keras_hub.layers.ViTImageConverter(**converter).save_to_preset(folder / "vit")
    return [f"hub:{folder / 'resnet'}", f"hub:{folder / 'vit'}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = load(arguments.seed, 100 if arguments.smoke else 1797)
    with tempfile.TemporaryDirectory() as folder:
        backbones = [*write_presets(Path(folder)), "AlexNet"]
        for backbone in backbones:
            keras.utils.set_random_seed(arguments.seed)
            size = 64 if backbone == "AlexNet" else 32
            # The scenario "scratch" opens every stage, and lets BatchNormalization train.
            model = kerastl.build_transfer_model(
                backbone,
                data.num_classes,
                scenario="scratch",
                weights="random",
                image_size=size,
            )
            name = backbone.rsplit("/", 1)[-1]
            for stage in kerastl.stages(model):
                print(
                    f"{name}: stage {stage.index} ends at {stage.name}, "
                    f"{stage.num_parameters:,} parameters"
                )
            model.fit(
                data.train.batches(size, shuffle=True, seed=arguments.seed),
                epochs=1 if arguments.smoke else 10,
                shuffle=False,  # the data set does
                verbose=2,
            )
            print(f"{name}: test accuracy", kerastl.evaluate(model, data.test)["accuracy"])


if __name__ == "__main__":
    main()
