"""Dice and ASSD of a thousand masks against MONAI and, sharing no code with it, SimpleITK.

Like is compared with like. Surface voxels are those with a face neighbour outside of the mask,
the world beyond the array being outside: MONAI's definition. SimpleITK's contour filter stops at
the array's border, so masks are padded by a voxel for it. It has no filter for ASSD; here its
contours and distance maps are put together. ASSD pools both surfaces. An empty mask has no
distance: MONAI answers NaN or infinity, SimpleITK an error, and crossvox what POLICY says.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_dice

from crossvox.evaluation.metrics import score_case

sitk = pytest.importorskip("SimpleITK", reason="needs the extra `dev`")
sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # more only wait for each other

COUNTS = (100, pytest.param(1000, marks=pytest.mark.slow))
Mask = np.ndarray
Pair = tuple[Mask, Mask]


def scattered(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return tuple(rng.random(shape) < rng.uniform(0.02, 0.9) for _ in range(2))


def ellipsoids(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    """Compact bodies that overlap more or less and often reach over the border."""
    return tuple(_ellipsoid(rng, shape) for _ in range(2))


def one_voxel(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    """A single voxel against a body."""
    mask = np.zeros(shape, bool)
    mask[tuple(rng.integers(n) for n in shape)] = True
    return mask, _ellipsoid(rng, shape)


def two_voxels(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return one_voxel(rng, shape)[0], one_voxel(rng, shape)[0]


def corners(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    """Boxes that grow from opposite corners of the array."""
    first, second = np.zeros(shape, bool), np.zeros(shape, bool)
    first[tuple(slice(rng.integers(1, n + 1)) for n in shape)] = True
    second[tuple(slice(rng.integers(n), None) for n in shape)] = True
    return first, second


def shells(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    """Hollow boxes: what is inside of a mask's hole is outside of the mask."""
    first, second = np.ones(shape, bool), np.ones(shape, bool)
    first[tuple(slice(1, n - 1) for n in shape)] = False
    second[tuple(slice(rng.integers(1, 3), n - 1) for n in shape)] = False
    return first, second


def one_slice(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    """Masks that are one voxel thick, along any axis."""
    pair = scattered(rng, shape)
    for mask in pair:
        axis = rng.integers(3)
        keep = rng.integers(shape[axis])
        np.moveaxis(mask, axis, 0)[np.arange(shape[axis]) != keep] = False
    return pair


def full(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return np.ones(shape, bool), _ellipsoid(rng, shape)


def same(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    mask = _ellipsoid(rng, shape)
    return mask, mask.copy()


def empty(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    """One of the two, or both."""
    none = np.zeros(shape, bool)
    pair = (none, _ellipsoid(rng, shape) if rng.random() < 0.7 else none)
    return pair if rng.random() < 0.5 else pair[::-1]


KINDS: tuple[Callable[[np.random.Generator, tuple[int, ...]], Pair], ...] = (
    *(scattered, ellipsoids, one_voxel, two_voxels, corners),
    *(shells, one_slice, full, same, empty),
)


def _ellipsoid(rng: np.random.Generator, shape: tuple[int, ...]) -> Mask:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    centre = np.array([rng.integers(n) for n in shape])
    return (((index - centre) / rng.uniform(0.8, 5, 3)) ** 2).sum(-1) <= 1


def cases(count: int) -> Iterator[tuple[str, Mask, Mask, np.ndarray]]:
    """Kind, both masks and the spacing, from 0.3 to 10 mm along each axis by itself."""
    rng = np.random.default_rng(2024)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        shape = tuple(int(n) for n in rng.integers(3, 13, 3))
        if number % 50 >= 40:
            shape = (shape[0], shape[1], 1)
        prediction, truth = kind(rng, shape)
        spacing = np.round(np.exp(rng.uniform(np.log(0.3), np.log(10), 3)), 3)
        yield kind.__name__, prediction, truth, spacing


def by_monai(prediction: Mask, truth: Mask, spacing: np.ndarray) -> dict[str, float]:
    p, t = (torch.from_numpy(m.copy())[None, None] for m in (prediction, truth))
    size = spacing.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "Dice": compute_dice(p.float(), t.float()).item(),
            "ASSD": compute_average_surface_distance(
                p, t, include_background=True, symmetric=True, spacing=size
            ).item(),
        }


def by_simpleitk(prediction: Mask, truth: Mask, spacing: np.ndarray) -> dict[str, float]:
    p, t = (_image(mask, spacing) for mask in (prediction, truth))
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(p, t)
    surfaces = [sitk.LabelContour(image, fullyConnected=False) for image in (p, t)]
    there, back = _distances(*surfaces), _distances(*surfaces[::-1])
    return {
        "Dice": overlap.GetDiceCoefficient(),
        "ASSD": math.fsum([*there, *back]) / (len(there) + len(back)),
    }


def _image(mask: Mask, spacing: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.pad(mask, 1).transpose(2, 1, 0).astype(np.uint8))
    image.SetSpacing(spacing.tolist())
    return image


def _distances(surface: sitk.Image, other: sitk.Image) -> list[float]:
    """From each voxel of a surface to the nearest of the other."""
    maps = sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True)
    inside = sitk.GetArrayFromImage(surface) > 0
    return np.abs(sitk.GetArrayFromImage(maps)[inside]).astype(float).tolist()


def ours(prediction: Mask, truth: Mask, spacing: np.ndarray) -> dict[str, float]:
    """The masks as one class of a label map: what `crossvox evaluate` computes."""
    labels = prediction.astype(np.int16), truth.astype(np.int16)
    (row,) = score_case(*labels, spacing, ["organ"])
    return {"Dice": row["dice"], "ASSD": row["assd_mm"]}


@pytest.mark.parametrize("count", COUNTS)
def test_scores_agree_with_monai_and_simpleitk(count: int, record_property) -> None:
    worst = {"MONAI": 0.0, "SimpleITK": 0.0}
    compared = 0
    for number, (kind, prediction, truth, spacing) in enumerate(cases(count)):
        if not prediction.any() or not truth.any():
            continue
        found = ours(prediction, truth, spacing)
        for name, reference in {
            "MONAI": by_monai(prediction, truth, spacing),
            "SimpleITK": by_simpleitk(prediction, truth, spacing),
        }.items():
            for metric, expected in reference.items():
                off = abs(found[metric] - expected)
                assert off <= 1e-5 * max(1, expected), (number, kind, name, metric, expected)
                worst[name] = max(worst[name], off)
        compared += 1
    assert compared > 0.85 * count
    record_property("cases compared with MONAI and SimpleITK", compared)
    for name, difference in worst.items():
        record_property(f"largest difference from {name}", float(f"{difference:.1e}"))


@pytest.mark.parametrize("count", COUNTS)
def test_empty_masks_follow_the_policy_in_every_case(count: int, record_property) -> None:
    seen = 0
    for _, prediction, truth, spacing in cases(count):
        if prediction.any() and truth.any():
            continue
        found = ours(prediction, truth, spacing)
        if prediction.any() or truth.any():
            across = math.dist(spacing * truth.shape, (0, 0, 0))
            assert found == {"Dice": 0, "ASSD": pytest.approx(across)}
        else:
            assert all(math.isnan(value) for value in found.values())
        seen += 1
    assert seen > 0.05 * count
    record_property("cases with an empty mask", seen)
