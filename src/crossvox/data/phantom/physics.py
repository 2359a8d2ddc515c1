"""Intensities, noise and artefacts of a CT and an MR scan of the synthetic abdomen.

No monotone map leads from one modality to the other. In CT all soft tissue is nearly alike and
bone is bright. In MR (a fat-suppressed T2 look) bone and flowing blood are dark; spleen, kidneys
and fluids are bright. Values vary from scan to scan, so no fixed threshold finds an organ.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from crossvox.data.phantom.anatomy import SmoothField, Tissue

HOUNSFIELD: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (-1000, 0),
    Tissue.FAT: (-100, 6),
    Tissue.MUSCLE: (58, 6),
    Tissue.LUNG: (-820, 30),
    Tissue.BONE: (560, 60),
    Tissue.MARROW: (210, 40),
    Tissue.DISC: (80, 8),
    Tissue.CSF: (25, 5),
    Tissue.ARTERY: (135, 20),
    Tissue.VEIN: (125, 18),
    Tissue.GLAND: (85, 10),
    Tissue.BOWEL: (70, 10),
    Tissue.CONTENT: (60, 45),
    Tissue.GAS: (-850, 50),
    Tissue.BILE: (12, 6),
    Tissue.LIVER: (95, 13),
    Tissue.SPLEEN: (104, 13),
    Tissue.LEFT_KIDNEY: (118, 16),
}
"""Mean and standard deviation between scans, in HU."""

SIGNAL: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (0.0, 0),
    Tissue.FAT: (0.26, 0.3),
    Tissue.MUSCLE: (0.18, 0.15),
    Tissue.LUNG: (0.05, 0.2),
    Tissue.BONE: (0.08, 0.2),
    Tissue.MARROW: (0.30, 0.2),
    Tissue.DISC: (0.45, 0.3),
    Tissue.CSF: (1.00, 0.1),
    Tissue.ARTERY: (0.07, 0.3),
    Tissue.VEIN: (0.22, 0.6),
    Tissue.GLAND: (0.42, 0.2),
    Tissue.BOWEL: (0.38, 0.2),
    Tissue.CONTENT: (0.70, 0.3),
    Tissue.GAS: (0.02, 0),
    Tissue.BILE: (1.00, 0.15),
    Tissue.LIVER: (0.34, 0.18),
    Tissue.SPLEEN: (0.70, 0.18),
    Tissue.LEFT_KIDNEY: (0.62, 0.15),
}
"""Relative signal, and the standard deviation of its logarithm between scans."""

_SAME_VALUE = {Tissue.RIGHT_KIDNEY: Tissue.LEFT_KIDNEY, Tissue.LIVER_VEIN: Tissue.VEIN}


def ct_image(tissue: np.ndarray, world: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return Hounsfield units (X, Y, Z) float32 with correlated noise and streaks.

    Args:
        tissue: `Tissue` codes (X, Y, Z, S); the last axis samples the slice's thickness.
        world: (3, X, Y, Z) RAS mm of the voxel centres.
        rng: random generator of this scan.
    """
    draws = {t: mean + spread * rng.standard_normal() for t, (mean, spread) in HOUNSFIELD.items()}
    image = _render(tissue, draws)
    # Texture within organs and the mottle of a reconstruction kernel.
    image += 7 * gaussian_filter(rng.standard_normal(image.shape), 1.5) * 5
    image = gaussian_filter(image, (0.45, 0.45, 0.3))
    noise = gaussian_filter(rng.standard_normal(image.shape), (0.7, 0.7, 0))
    image += rng.uniform(14, 24) * noise / noise.std()
    image += _streaks(world, rng)
    return np.clip(image, -1024, 3071).astype(np.float32)


def mr_image(tissue: np.ndarray, world: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the magnitude signal (X, Y, Z) float32 ≥ 0: random scale, bias field, Rician noise.

    Args:
        tissue: `Tissue` codes (X, Y, Z, S); the last axis samples the slice's thickness.
        world: (3, X, Y, Z) RAS mm of the voxel centres.
        rng: random generator of this scan.
    """
    draws = {t: mean * np.exp(rng.normal(0, spread)) for t, (mean, spread) in SIGNAL.items()}
    image = _render(tissue, draws)
    image *= 1 + 0.25 * gaussian_filter(rng.standard_normal(image.shape), (1.2, 1.2, 0.5))
    image = gaussian_filter(image, (0.5, 0.5, 0))
    bias = SmoothField(rng, 110)(world.reshape(3, -1)).reshape(image.shape)
    image *= np.exp(rng.uniform(0.15, 0.35) * bias)
    level = rng.uniform(0.02, 0.04)
    real, imaginary = level * rng.standard_normal((2, *image.shape))
    scale = np.exp(rng.uniform(np.log(200), np.log(1500)))
    return (scale * np.hypot(image + real, imaginary)).astype(np.float32)


def _render(tissue: np.ndarray, values: dict[Tissue, float]) -> np.ndarray:
    """Return the mean value over the samples of each voxel."""
    table = np.zeros(len(Tissue))
    for code, value in values.items():
        table[code] = value
    for code, same in _SAME_VALUE.items():
        table[code] = table[same]
    return table[tissue].mean(axis=-1)


def _streaks(world: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return faint straight lines across the axial plane, strongest near the spine."""
    x, y, z = world
    x, y = x - x.mean(), y - y.mean()
    total = np.zeros(x.shape)
    for angle in rng.uniform(0, np.pi, 5):
        across = x * np.cos(angle) + y * np.sin(angle) + 40 * np.sin(angle)
        wave = np.cos(across / rng.uniform(2.5, 5) + z / 9 + rng.uniform(0, 6))
        total += rng.normal(0, 7) * wave * np.exp(-((across / 22) ** 2))
    return total
