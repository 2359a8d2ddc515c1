"""Dice and surface distances of one case, on the image's own grid and in mm."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import TypedDict

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

from crossvox.batch import IGNORE

POLICY = (
    "Scores are taken per case, modality and class on the image's own grid; distances are in mm. "
    "Mask empty in prediction and truth: no score (empty cell), counted in n_both_empty. "
    "Empty in the prediction only (n_missed) or in the truth only (n_false): Dice 0 and ASSD = "
    "the image's diagonal. Voxels without annotation are left out of both masks; classes that "
    "were not annotated in a case are not scored there."
)
"""What happens to empty masks and to what is not annotated, for people who read the numbers."""

Box = tuple[slice, ...]
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
"""One class of one label map; `voxels` is how many were compared (all but the ignored ones)."""


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient 2 |P ∩ T| / (|P| + |T|) of two masks of one shape.

    Returns:
        A value in [0, 1]; NaN if both masks are empty, 0 if one of them is.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, truth = _masks(prediction, truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * int(np.count_nonzero(prediction & truth)) / int(total) if total else float("nan")


def assd(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """Average symmetric surface distance of two masks of one shape, in mm.

    A mask's surface is the set of its voxels with a face neighbour outside of the mask; what lies
    beyond the array counts as outside. Every surface voxel of either mask contributes the
    Euclidean distance from its centre to the nearest centre among the other mask's surface
    voxels, and the mean is taken over the voxels of both surfaces *together*
    (Σ_p d(p, T) + Σ_t d(t, P)) / (|∂P| + |∂T|), which is MONAI's
    `compute_average_surface_distance(symmetric=True)`, not the mean of the two directed means.

    Args:
        prediction: mask, (X, Y, Z).
        truth: mask, (X, Y, Z).
        spacing: voxel size in mm along each axis.

    Returns:
        The distance; NaN if both masks are empty, the image's diagonal if one of them is.

    Raises:
        ValueError: the shapes differ, or the spacing is not one positive length per axis.
    """
    prediction, truth = _masks(prediction, truth)
    _check_spacing(spacing, truth.ndim)
    return _distance(prediction, truth, spacing, diagonal(truth.shape, spacing))


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """95 % Hausdorff distance of two masks of one shape, in mm.

    Surfaces and distances are those of `assd`. The larger of the two directed 95th percentiles,
    interpolated linearly between distances, which is MONAI's
    `compute_hausdorff_distance(percentile=95)`, not the percentile of both directions' distances
    together.

    Args:
        prediction: mask, (X, Y, Z).
        truth: mask, (X, Y, Z).
        spacing: voxel size in mm along each axis.

    Returns:
        The distance; NaN if both masks are empty, the image's diagonal if one of them is.

    Raises:
        ValueError: the shapes differ, or the spacing is not one positive length per axis.
    """
    prediction, truth = _masks(prediction, truth)
    _check_spacing(spacing, truth.ndim)
    if not prediction.any() or not truth.any():
        return _empty_distance(prediction, truth, diagonal(truth.shape, spacing))
    distance = compute_hausdorff_distance(
        _one_hot(prediction),
        _one_hot(truth),
        include_background=True,
        percentile=95,
        spacing=[float(size) for size in spacing],
    )
    return float(distance)


def diagonal(shape: Sequence[int], spacing: Spacing) -> float:
    """Length of an image's diagonal in mm, from outer corner to outer corner of its voxels."""
    return float(np.linalg.norm(np.multiply(shape, spacing)))


def score_case(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Spacing,
    classes: Sequence[str],
    annotated: Collection[str] | None = None,
) -> list[Score]:
    """Score one predicted label map against the truth, class by class (see `POLICY`).

    Args:
        prediction: (X, Y, Z) class indices, 0 = background.
        truth: (X, Y, Z) class indices, `IGNORE` where there is no annotation.
        spacing: voxel size in mm along each axis.
        classes: names of the class indices 1, 2, …
        annotated: the classes that were outlined in this case; None = all of them.

    Returns:
        One row per annotated class, in the order of `classes`.

    Raises:
        ValueError: shapes or spacing are unfit (see `assd`), or an annotated class is unknown.
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
    # One pass finds all classes' boxes; what follows looks only inside them.
    found = zip(_boxes(prediction, len(classes)), _boxes(truth, len(classes)), strict=True)
    scores = []
    for index, (name, boxes) in enumerate(zip(classes, found, strict=True), start=1):
        if annotated is None or name in annotated:
            box = _union(*boxes)
            masks = prediction[box] == index, truth[box] == index
            scores.append(_score(name, *masks, spacing, diagonal(truth.shape, spacing), voxels))
    return scores


def _score(
    name: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Spacing,
    penalty: float,
    voxels: int,
) -> Score:
    n_prediction, n_truth = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    voxel_ml = float(np.prod(spacing)) / 1000
    return {
        "class": name,
        "dice": dice(prediction, truth),
        "assd_mm": _distance(prediction, truth, spacing, penalty),
        "n_missed": int(n_truth > 0 and n_prediction == 0),
        "n_false": int(n_truth == 0 and n_prediction > 0),
        "n_both_empty": int(n_truth == 0 and n_prediction == 0),
        "volume_truth_ml": n_truth * voxel_ml,
        "volume_prediction_ml": n_prediction * voxel_ml,
        "voxels": voxels,
    }


def _distance(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing, penalty: float) -> float:
    if not prediction.any() or not truth.any():
        return _empty_distance(prediction, truth, penalty)
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 call a deprecated argument of their own.
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_average_surface_distance(
            _one_hot(prediction),
            _one_hot(truth),
            include_background=True,
            symmetric=True,
            spacing=[float(size) for size in spacing],
        )
    return float(distance)


def _empty_distance(prediction: np.ndarray, truth: np.ndarray, penalty: float) -> float:
    """What stands for a distance that does not exist, since a mask is empty (see `POLICY`)."""
    return penalty if prediction.any() or truth.any() else float("nan")


def _one_hot(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]


def _boxes(labels: np.ndarray, count: int) -> list[Box | None]:
    return ndimage.find_objects(labels, max_label=count)


def _union(first: Box | None, second: Box | None) -> Box:
    if first is None or second is None:
        return first or second or (slice(0),)
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(first, second, strict=True)
    )


def _masks(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction is {prediction.shape}, truth is {truth.shape}")
    return prediction, truth


def _check_spacing(spacing: Spacing, axes: int) -> None:
    if len(spacing) != axes or not all(value > 0 for value in spacing):
        raise ValueError(f"spacing {tuple(spacing)} is not {axes} positive lengths in mm")
