"""Each class keeps its largest component, as when the whole volume is labelled at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from crossvox.batch import IGNORE
from crossvox.utils.connected_components import (
    CHUNK,
    class_boxes,
    class_centres,
    find_components,
    keep_largest_components,
)


def test_the_largest_component_of_each_class_stays_and_the_rest_is_counted() -> None:
    label = np.array([1, 1, 0, 1, 2, 2, 2, 0, 2], dtype=np.int16).reshape(9, 1, 1)
    dropped = keep_largest_components(label, [1, 2])
    assert label.ravel().tolist() == [1, 1, 0, 0, 2, 2, 2, 0, 0]
    assert dropped.tolist() == [0, 1, 1]


def test_the_first_of_equal_components_stays() -> None:
    label = np.array([0, 1, 0, 1], dtype=np.int16).reshape(1, 4, 1)
    keep_largest_components(label, [1])
    assert label.ravel().tolist() == [0, 1, 0, 0]


def test_components_that_only_touch_at_an_edge_are_two() -> None:
    label = np.zeros((2, 2, 1), dtype=np.int16)
    label[0, 0] = label[1, 1] = 1
    keep_largest_components(label, [1])
    assert label.sum() == 1


def test_other_classes_and_voxels_without_annotation_stay() -> None:
    values = [1, 0, 1, 2, 0, 2, IGNORE, 3, 0, 3]
    label = np.array(values, dtype=np.int16).reshape(10, 1, 1)
    keep_largest_components(label, [2, 4, 9])
    assert label.ravel().tolist() == [1, 0, 1, 2, 0, 0, IGNORE, 3, 0, 3]
    nothing = np.zeros((2, 2, 2), dtype=np.int16)
    assert keep_largest_components(nothing, [1]).tolist() == [0] and not nothing.any()


@pytest.mark.parametrize("seed", range(4))
def test_as_labelling_the_whole_volume(seed: int) -> None:
    """The boxes around the classes are a short cut; the answer is that without them."""
    noise = np.random.default_rng(seed).normal(size=(20, 18, 12))
    label = np.digitize(ndimage.gaussian_filter(noise, 1.2), [0.02, 0.08]).astype(np.int16)
    expected = np.zeros_like(label)
    for index in (1, 2):
        parts, _ = ndimage.label(label == index)
        expected[parts == np.bincount(parts.ravel())[1:].argmax() + 1] = index
    counts = [(label == index).sum() for index in (1, 2)]
    dropped = keep_largest_components(label, [1, 2])
    assert np.array_equal(label, expected)
    assert dropped[1:].tolist() == [n - (label == k).sum() for k, n in enumerate(counts, 1)]


def test_components_and_centres_are_those_of_the_whole_volume() -> None:
    noise = np.random.default_rng(3).normal(size=(40, 90, 80))  # of several chunks
    label = np.digitize(ndimage.gaussian_filter(noise, 1.5), [0.02, 0.08]).astype(np.int16)
    assert label.size > CHUNK
    found = class_centres(label, [1, 2, 7])
    assert list(found) == [1, 2]
    assert [index for index, _ in class_boxes(label, [2, 1, 7])] == [2, 1]
    for index, box in class_boxes(label, [1, 2]):
        components, own = find_components(label, index, box), label == index
        numbers, n = ndimage.label(own)
        centres = ndimage.center_of_mass(own, numbers, range(1, n + 1))
        np.testing.assert_allclose(components.centres(), centres)
        np.testing.assert_array_equal(components.sizes, np.bincount(numbers.ravel())[1:])
        np.testing.assert_allclose(found[index], ndimage.center_of_mass(own))
