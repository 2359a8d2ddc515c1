"""Random changes of a crop's intensities."""

from __future__ import annotations

import numpy as np
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandomizableTransform,
    RandScaleIntensity,
    RandShiftIntensity,
    RandSimulateLowResolution,
)
from torch import Tensor

from crossvox.data.crops.settings import Augment


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
            for share, invert in ((1 - augment.invert, False), (augment.invert, True)):
                if share:
                    transforms.append(RandAdjustContrast(p * share, gamma, invert_image=invert))
        if augment.brightness:
            transforms.append(RandShiftIntensity(offsets=augment.brightness, prob=p))
        if augment.low_resolution > 1:
            zoom = (1 / augment.low_resolution, 1.0)
            transforms.append(RandSimulateLowResolution(prob=p, zoom_range=zoom))
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
