"""How near predicted numbers come, in numbers, each with its 95 % interval."""

from typing import Any

import numpy as np
from sklearn.metrics import (
    mean_absolute_error,
    median_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from kerastl.results.measures import centred_interval, draws_of_images

_NAMES = ("mean_absolute_error", "root_mean_squared_error", "r2", "median_absolute_error")


def value_measures(truth: np.ndarray, values: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Return the measures of `evaluate` for numbers.

    Args:
        truth: `(num_images, num_targets)`; at least one image.
        values: predicted, `(num_images, num_targets)`.
        seed: of the draws of the bootstrap.
    """
    truth, values = truth.astype("float64"), values.astype("float64")
    targets, drawn = [], []
    for place in range(truth.shape[1]):
        found, draws = _one_target(truth[:, place], values[:, place], seed)
        targets.append(found)
        drawn.append(draws)
    overall = {name: _mean([target[name] for target in targets]) for name in _NAMES}
    return {
        **overall,
        "num_images": len(truth),
        "intervals": {
            name: _interval(np.mean([draws[name] for draws in drawn], axis=0), overall[name], name)
            for name in _NAMES
        },
        "targets": targets,
    }


def _one_target(
    truth: np.ndarray, values: np.ndarray, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the measures of one target with their intervals, and those of each draw."""
    varies = len(truth) > 1 and float(np.ptp(truth)) > 0
    found: dict[str, Any] = {
        "mean_absolute_error": float(mean_absolute_error(truth, values)),
        "root_mean_squared_error": float(root_mean_squared_error(truth, values)),
        "r2": float(r2_score(truth, values)) if varies else None,
        "median_absolute_error": float(median_absolute_error(truth, values)),
    }
    parts = [_drawn(truth, values, counts) for counts in draws_of_images(len(truth), seed)]
    draws = {name: np.concatenate([part[name] for part in parts]) for name in _NAMES}
    intervals = {f"{name}_interval": _interval(draws[name], found[name], name) for name in _NAMES}
    return {**found, **intervals}, draws


def _drawn(truth: np.ndarray, values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures under each row of `counts`, how often each image was drawn."""
    num_images = len(truth)
    gaps = np.abs(values - truth)
    centred = truth - truth.mean()
    squares = counts @ gaps**2
    spread = counts @ centred**2 - (counts @ centred) ** 2 / num_images
    order = np.argsort(gaps, kind="stable")
    reached = np.cumsum(counts[:, order], axis=1)
    middles = [
        gaps[order][np.argmax(reached > place, axis=1)]
        for place in ((num_images - 1) // 2, num_images // 2)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.where(
            spread > 1e-12 * max(1e-300, (centred**2).sum()), 1 - squares / spread, np.nan
        )
    return {
        "mean_absolute_error": counts @ gaps / num_images,
        "root_mean_squared_error": np.sqrt(squares / num_images),
        "r2": r2,
        "median_absolute_error": np.mean(middles, axis=0),
    }


def _interval(draws: np.ndarray, value: float | None, name: str) -> list[float] | None:
    known = draws[np.isfinite(draws)]
    if value is None or len(known) < len(draws) / 2:
        return None
    low, high = (-np.inf, 1.0) if name == "r2" else (0.0, np.inf)
    return centred_interval(known, value, high, low)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
