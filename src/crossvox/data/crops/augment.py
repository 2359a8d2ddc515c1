"""Augmentation of crops: random pose (rotation, scale, mirroring) and random intensities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandomizableTransform,
    RandScaleIntensity,
    RandShiftIntensity,
)
from torch import Tensor

from crossvox.batch import Task
from crossvox.errors import require


@dataclass(frozen=True)
class Augment:
    """Strength of the augmentation; 0 switches a change off.

    Attributes:
        rotate: largest rotation in degrees, about all axes; with thick slices about the
            through-plane axis only.
        scale: largest relative change of size.
        flip: probability of mirroring each axis along which this swaps no left/right classes.
        brightness: largest shift of normalised intensities.
        contrast: largest relative change of intensities.
        gamma: largest exponent of the gamma curve; the smallest is its inverse.
        noise: largest standard deviation of added Gaussian noise.
        blur: largest standard deviation of the Gaussian blur in voxels.
        probability: of each change of the intensities.
    """

    rotate: float = 15.0
    scale: float = 0.1
    flip: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    gamma: float = 1.4
    noise: float = 0.1
    blur: float = 0.7
    probability: float = 0.3

    def __post_init__(self) -> None:
        require("augment.rotate", self.rotate, 0, 180)
        require("augment.scale", self.scale, 0, 0.9)
        require("augment.gamma", self.gamma, 1)
        for name in ("flip", "probability"):
            require(f"augment.{name}", getattr(self, name), 0, 1)
        for name in ("brightness", "contrast", "noise", "blur"):
            require(f"augment.{name}", getattr(self, name), 0)


def random_pose(augment: Augment, task: Task, rng: np.random.Generator) -> np.ndarray:
    """Draw the (3, 3) map from crop voxels to scan voxels, both relative to the crop's centre.

    The rotation acts in mm. Otherwise it would shear the anatomy where voxels are not cubes.
    """
    spacing = np.array(task.spacing)
    thick = spacing[2] > 2 * spacing[:2].max()
    rotation = np.eye(3)
    for axis in (2,) if thick else (0, 1, 2):
        angle = np.radians(augment.rotate) * rng.uniform(-1, 1)
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    size = 1 + augment.scale * rng.uniform(-1, 1, 3)
    mirror = np.ones(3)
    for axis in task.flips:
        if rng.random() < augment.flip:
            mirror[axis] = -1
    return np.diag(1 / spacing) @ rotation @ np.diag(spacing * mirror / size)


class IntensityAugmentation:
    """MONAI's random intensity transforms with the strengths of an `Augment`.

    >>> augment = IntensityAugmentation(Augment(noise=0.2))
    >>> torch.equal(augment(crop, seed=3), augment(crop, seed=3))
    True
    """

    def __init__(self, augment: Augment) -> None:
        p = augment.probability
        transforms: list[RandomizableTransform] = []
        if augment.blur:
            sigma = (0.1, augment.blur)
            transforms.append(RandGaussianSmooth(sigma, sigma, sigma, prob=p))
        if augment.contrast:
            transforms.append(RandScaleIntensity(factors=augment.contrast, prob=p))
        if augment.gamma > 1:
            gamma = (1 / augment.gamma, augment.gamma)
            transforms.append(RandAdjustContrast(prob=p, gamma=gamma))
        if augment.brightness:
            transforms.append(RandShiftIntensity(offsets=augment.brightness, prob=p))
        if augment.noise:
            transforms.append(RandGaussianNoise(prob=p, std=augment.noise))
        self.transforms = transforms

    def __call__(self, crop: Tensor, seed: int) -> Tensor:
        """Return a (1, X, Y, Z) crop with intensities changed at random."""
        # One generator for all transforms. `Compose` would set up one for each, which takes longer
        # than the transforms themselves.
        state = np.random.RandomState(seed)
        # Without metadata MONAI's transforms take half the time.
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            for transform in self.transforms:
                transform.set_random_state(state=state)
                crop = transform(crop)
        finally:
            set_track_meta(tracked)
        return crop
