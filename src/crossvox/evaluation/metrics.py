"""Dice and surface distances of one case, on the image's own grid, distances in mm."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from scipy import ndimage

from crossvox.batch import IGNORE

POLICY = (
    "Scores are taken per case, modality and class on the image's own grid; distances are in mm. "
    "Mask empty in prediction and truth: no score (empty cell), counted in n_both_empty. "
    "Empty in the prediction only (n_missed) or in the truth only (n_false): Dice 0; in cases.csv "
    "ASSD = the image's diagonal, which enters no mean of ASSD. Voxels without annotation are left "
    "out of both masks; classes that were not annotated in a case are not scored there."
)
"""The rule on empty masks and missing annotations, for readers of the numbers."""

BoundingBox = tuple[slice, ...]
Spacing = Sequence[float] | np.ndarray

Score = TypedDict(
    "Score",
    {
        "class": str,
        "dice": float,
        "assd_mm": float,
        "n_missed": int,
        "n_false": int,
        "n_both_empty": int,
        "volume_truth_ml": float,
        "volume_prediction_ml": float,
        "voxels": int,
    },
)
"""Scores of one class in one label map; `voxels` counts those that are not ignored."""


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Compute the Dice coefficient 2 |P ∩ T| / (|P| + |T|) of two masks.

    >>> prediction, truth = np.array([1, 1, 0, 1]), np.array([0, 1, 0, 0])
    >>> dice(prediction, truth)
    0.5

    Args:
        prediction: mask of any shape.
        truth: mask of the same shape.

    Returns:
        A value in [0, 1]; NaN if both masks are empty, 0 if one of them is.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction is {prediction.shape}, truth is {truth.shape}")
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * int(np.count_nonzero(prediction & truth)) / int(total) if total else float("nan")


def averaged(row: Mapping[str, Any], metric: str) -> float:
    """Return what a row of scores gives to a mean: NaN for the ASSD of an organ not found.

    One organ missed among many would otherwise put the size of the image in place of a distance.

    Args:
        row: a `Score`.
        metric: "dice" or "assd_mm".
    """
    lost = metric == "assd_mm" and (row["n_missed"] or row["n_false"])
    return math.nan if lost else float(row[metric])


def diagonal(shape: Sequence[int], spacing: Spacing) -> float:
    """Return the diagonal of an image in mm, between the outer corners of its voxels."""
    return float(np.linalg.norm(np.multiply(shape, spacing)))


def score_case(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Spacing,
    classes: Sequence[str],
    annotated: Collection[str] | None = None,
    distances: bool = True,
) -> list[Score]:
    """Score one predicted label map against the truth, class by class (see `POLICY`).

    >>> truth = np.pad(np.ones((4, 4, 4), int), 2)
    >>> (liver,) = score_case(np.roll(truth, 1, axis=0), truth, (1, 1, 2.5), ("liver",))
    >>> liver["dice"], liver["volume_truth_ml"]
    (0.75, 0.16)

    Args:
        prediction: (X, Y, Z) class indices, 0 = background.
        truth: (X, Y, Z) class indices, `IGNORE` where there is no annotation.
        spacing: voxel size in mm along each axis.
        classes: names of the class indices 1, 2, …
        annotated: the classes that were outlined in this case; None = all of them.
        distances: whether to compute surface distances; if not, they are NaN.

    Returns:
        One row per annotated class, in the order of `classes`.

    Raises:
        ValueError: the shapes differ, the spacing is not one positive length per axis, or an
            annotated class is unknown.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction is {prediction.shape}, truth is {truth.shape}")
    _check_spacing(spacing, truth.ndim)
    if unknown := set(annotated or ()) - set(classes):
        raise ValueError(f"annotated classes {sorted(unknown)} are not among {list(classes)}")
    ignored = truth == IGNORE
    voxels = truth.size - int(np.count_nonzero(ignored))
    if voxels < truth.size:
        prediction = np.where(ignored, 0, prediction)
    # One pass finds the bounding boxes of all classes; only their insides are compared.
    found = zip(_boxes(prediction, len(classes)), _boxes(truth, len(classes)), strict=True)
    scores = []
    for index, (name, boxes) in enumerate(zip(classes, found, strict=True), start=1):
        if annotated is None or name in annotated:
            box = _union(*boxes)
            masks = prediction[box] == index, truth[box] == index
            distance = float("nan")
            if distances:
                distance = _distance(*masks, spacing, diagonal(truth.shape, spacing))
            scores.append(_score(name, *masks, spacing, distance, voxels))
    return scores


def _score(
    name: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Spacing,
    distance: float,
    voxels: int,
) -> Score:
    n_prediction, n_truth = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    voxel_ml = float(np.prod(spacing)) / 1000
    return {
        "class": name,
        "dice": dice(prediction, truth),
        "assd_mm": distance,
        "n_missed": int(n_truth > 0 and n_prediction == 0),
        "n_false": int(n_truth == 0 and n_prediction > 0),
        "n_both_empty": int(n_truth == 0 and n_prediction == 0),
        "volume_truth_ml": n_truth * voxel_ml,
        "volume_prediction_ml": n_prediction * voxel_ml,
        "voxels": voxels,
    }


def _distance(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing, penalty: float) -> float:
    """Return the average symmetric surface distance (ASSD) of two masks, in mm; see `POLICY`.

    A mask's surface is the set of its voxels with a face neighbour outside the mask; the array's
    surroundings count as outside. Distances are Euclidean, from each surface voxel's centre to
    the nearest one of the other surface. The mean is taken over the voxels of both surfaces
    together, (Σ_p d(p, ∂T) + Σ_t d(t, ∂P)) / (|∂P| + |∂T|), not over two directed means.
    """
    if not prediction.any() or not truth.any():
        return penalty if prediction.any() or truth.any() else math.nan
    # Imported here: MONAI takes seconds, and most who read scores measure none.
    import torch
    from monai.metrics import compute_average_surface_distance

    one, two = (torch.from_numpy(np.ascontiguousarray(m))[None, None] for m in (prediction, truth))
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 warn of a deprecated argument that they pass themselves.
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_average_surface_distance(
            one,
            two,
            include_background=True,
            symmetric=True,
            spacing=[float(size) for size in spacing],
        )
    return float(distance)


def _boxes(labels: np.ndarray, count: int) -> list[BoundingBox | None]:
    return ndimage.find_objects(labels, max_label=count)


def _union(first: BoundingBox | None, second: BoundingBox | None) -> BoundingBox:
    if first is None or second is None:
        return first or second or (slice(0),)
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(first, second, strict=True)
    )


def _check_spacing(spacing: Spacing, axes: int) -> None:
    if len(spacing) != axes or not all(value > 0 for value in spacing):
        raise ValueError(f"spacing {tuple(spacing)} is not {axes} positive lengths in mm")
