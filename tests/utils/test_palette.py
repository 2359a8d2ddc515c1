from __future__ import annotations

import itertools

import numpy as np
import pytest

from crossvox.utils.palette import COLOURS, ERRORS, class_colour

# How each dichromat sees linear RGB (Machado, Oliveira and Fernandes, IEEE TVCG 2009).
VISIONS = {
    "trichromat": np.eye(3),
    "protanope": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranope": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanope": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.950]])


def lab(colour: str, vision: str) -> np.ndarray:
    """CIELAB of #RRGGBB as someone of that vision sees it."""
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(np.asarray(VISIONS[vision]) @ linear, 0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def nearest(pairs, vision: str) -> float:
    return min(float(np.linalg.norm(lab(a, vision) - lab(b, vision))) for a, b in pairs)


@pytest.mark.parametrize("vision", VISIONS)
def test_errors_look_like_no_class_and_not_like_each_other(vision):
    among_classes = nearest(itertools.combinations(COLOURS, 2), vision)
    errors = list(ERRORS.values())
    pairs = [*itertools.product(errors, COLOURS), *itertools.combinations(errors, 2)]
    assert nearest(pairs, vision) > max(20, among_classes - 1)
    shades = [class_colour(k) for k in range(8, 22)]
    assert nearest(itertools.product(errors, shades), vision) > 10


@pytest.mark.parametrize("vision", VISIONS)
def test_errors_stand_out_from_greys(vision):
    greys = [f"#{grey:02X}{grey:02X}{grey:02X}" for grey in range(0, 256, 16)]
    assert nearest(itertools.product(ERRORS.values(), greys), vision) > 14
