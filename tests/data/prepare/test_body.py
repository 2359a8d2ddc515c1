from __future__ import annotations

import numpy as np

from crossvox.data.prepare.body import body_mask


def scan(seed=0):
    """An ellipse of tissue with a lung in it, over noisy air and a table that touches it."""
    x, y, _ = np.indices((120, 100, 12), np.float32)
    body = ((x - 60) / 45) ** 2 + ((y - 45) / 30) ** 2 < 1
    lung = ((x - 45) / 12) ** 2 + ((y - 45) / 12) ** 2 < 1
    image = np.random.default_rng(seed).normal(-1000, 15, x.shape).astype(np.float32)
    image[body & ~lung] = 40
    image[:, 74:76] = -100
    return image, body


def test_the_body_is_found_with_its_lung_and_without_table_and_air():
    image, body = scan()
    found = body_mask(image)
    assert found.shape == body.shape and found[body].mean() > 0.99
    assert (found & ~body).sum() / body.sum() < 0.1
    assert not found[:5].any() and found[45, 45].all()


def test_a_unit_or_a_missing_value_changes_nothing():
    image, _ = scan()
    expected = body_mask(image)
    assert (body_mask(image * 1e-6) == expected).all()
    image[0, 0, 0] = np.nan
    assert (body_mask(image) == expected).all()


def test_an_image_of_one_value_is_all_body():
    assert body_mask(np.zeros((5, 6, 7))).all()
    assert body_mask(np.full((5, 6, 7), np.nan)).all()
