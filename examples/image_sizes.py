"""Which image size is worth its price? A probe at each tells, before anything is trained.

python examples/image_sizes.py
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

import kerastl

BACKBONE = "MobileNetV2(alpha=0.35)"
CANVAS, DIGIT = 96, 64


def small_digits(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return digits of 64 pixels, each somewhere on 96 x 96 pixels."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    chosen = rng.permutation(len(digits.target))[:num_images]
    images = np.zeros((num_images, CANVAS, CANVAS, 3), "uint8")
    for image, digit in zip(images, digits.images[chosen], strict=True):
        top, left = rng.integers(0, CANVAS - DIGIT, 2)
        large = np.kron(digit, np.ones((DIGIT // 8, DIGIT // 8))) * (255 / 16)
        image[top : top + DIGIT, left : left + DIGIT] = large[..., None]
    return images, digits.target[chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pixels, labels = small_digits(200 if arguments.smoke else 1600, arguments.seed)
    half = len(labels) // 2
    data = kerastl.load_data(
        (pixels[:half], labels[:half]), test=(pixels[half:], labels[half:]), seed=arguments.seed
    )
    sizes = (32, 64) if arguments.smoke else (32, 64, 96, 128, 160)
    diagnosis = kerastl.diagnose(
        BACKBONE, data, weights="embedded", image_sizes=sizes, seed=arguments.seed
    )
    for probe in diagnosis.sizes:
        print(
            f"{probe.image_size[0]:>4}  probe {probe.score:.3f}  work {probe.work:4.1f}"
            f"{'  <- chosen' if probe.chosen else ''}"
        )
    advice = kerastl.advise(diagnosis, backbone=BACKBONE, weights="embedded")
    print(next(str(reason) for reason in advice.reasons if reason.name == "image_size"))


if __name__ == "__main__":
    main()
