"""A run's numbers as series over its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Series = tuple[np.ndarray, np.ndarray]
"""Steps and values, (N,) each."""


def number(value: Any) -> float | None:
    """A finite number, or None for what is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def series(rows: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    """Name → series of rows with step, name and value, names in order of appearance.

    Rows cut short and values that are not finite are left out.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step, value = number(row.get("step")), number(row.get("value"))
        if step is not None and value is not None and row.get("name"):
            found.setdefault(str(row["name"]), []).append((step, value))
    return {name: (*np.array(points).T,) for name, points in found.items()}


def validation_dice(found: Mapping[str, Series]) -> dict[str, Series]:
    """The validation Dice among named series: each modality's, and last the `mean` of all."""
    names = sorted(
        (name for name in found if name.startswith("val/dice") and name.count("/") <= 2),
        key=lambda name: name == "val/dice",
    )
    return {name.removeprefix("val/dice").lstrip("/") or "mean": found[name] for name in names}


def running_mean(values: np.ndarray) -> np.ndarray:
    """The mean over a fifteenth of the values around each of them."""
    width = min(len(values), max(1, len(values) // 15))
    window = np.ones(width)
    # At the ends the window holds fewer values; the mean is over those there are.
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def needs_logarithm(values: np.ndarray) -> bool:
    """Whether values are positive and span a decade."""
    return bool(values.min() > 0 and values.max() > 10 * values.min())
