"""Settings of the crops; they are read where torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass

from crossvox.errors import require


@dataclass(frozen=True)
class Sampling:
    """Crops of a step, over all processes together.

    Attributes:
        labelled: labelled crops per modality.
        unlabelled: unlabelled crops per modality.
        foreground: share of the labelled crops that show a voxel of a random class, 0 to 1.
        partner_drop: share of the labelled crops without the subject's other modalities, 0 to 1,
            so that the method also learns from one modality alone; not for methods that see to
            this themselves (`efcd`, `mmformer`).
        align: align the scans of a subject by a shift, in training and prediction, since headers
            may be centimetres off; registered data sets are not aligned.
    """

    labelled: int = 2
    unlabelled: int = 2
    foreground: float = 0.5
    partner_drop: float = 0.5
    align: bool = True

    def __post_init__(self) -> None:
        require("sampling.labelled", self.labelled, 1)
        require("sampling.unlabelled", self.unlabelled, 1)
        require("sampling.foreground", self.foreground, 0, 1)
        require("sampling.partner_drop", self.partner_drop, 0, 1)


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
        low_resolution: largest factor by which a crop is coarsened, then brought back; 1 is none.
        invert: share of the gamma curves that act on the negative.
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
    low_resolution: float = 1.0
    invert: float = 0.0
    probability: float = 0.3

    def __post_init__(self) -> None:
        require("augment.rotate", self.rotate, 0, 180)
        require("augment.scale", self.scale, 0, 0.9)
        for name in ("gamma", "low_resolution"):
            require(f"augment.{name}", getattr(self, name), 1)
        for name in ("flip", "invert", "probability"):
            require(f"augment.{name}", getattr(self, name), 0, 1)
        for name in ("brightness", "contrast", "noise", "blur"):
            require(f"augment.{name}", getattr(self, name), 0)
