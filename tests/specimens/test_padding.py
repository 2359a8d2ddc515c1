"""Fill that was put round a scan: it holds no anatomy, so it gets no label."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from crossvox.data.content import Content, find_content
from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.inference.model import shown_part
from crossvox.inference.postprocessing import Postprocessing
from crossvox.inference.slabs import Slab
from crossvox.workflows.prediction.predictor import Predictor
from fixtures.run import trained

SHAPE = (12, 10, 8)

pytestmark = pytest.mark.specimen("padding")


def padded(fill: float, widths) -> np.ndarray:
    return np.pad(np.random.default_rng(0).normal(0, 9, SHAPE), widths, constant_values=fill)


@pytest.mark.parametrize("fill", [0.0, -1024.0, 77.5])
@pytest.mark.parametrize(
    "widths",
    [((5, 5), (5, 5), (0, 0)), ((0, 7), (0, 0), (0, 0)), ((2, 3), (4, 1), (6, 2)), ((0, 0),) * 3],
)
def test_constant_planes_at_the_border_are_fill(fill, widths) -> None:
    first = [before for before, _ in widths]
    stop = [before + n for (before, _), n in zip(widths, SHAPE, strict=True)]
    assert find_content(padded(fill, widths)).box.tolist() == [first, stop]


def large_padded() -> np.ndarray:
    values = np.random.default_rng(0).normal(300, 80, (60, 50, 40))
    return np.pad(values, ((9, 0), (0, 0), (0, 15)), constant_values=-5)


def test_a_corner_voxel_makes_no_content() -> None:
    data = large_padded()
    data[0, 0, -1] = data[0, 0, 0] = data[-1, -1, -1] = 900
    assert find_content(data).box.tolist() == [[9, 0, 0], [69, 50, 40]]


def test_faint_noise_makes_no_content_and_true_noise_does() -> None:
    faint, true = np.random.default_rng(1).uniform(-1, 1, (2, 69, 50, 15))
    data = large_padded()
    data[:, :, 40:] += 0.001 * faint
    assert find_content(data).box.tolist() == [[9, 0, 0], [69, 50, 40]]
    data[:, :, 40:] += 3 * true  # air of an ordinary scan
    assert find_content(data).box.tolist() == [[0, 0, 0], [69, 50, 55]]


def test_fill_of_two_constants_one_after_the_other() -> None:
    data = large_padded()[9:]
    data[:, :, 48:] = 40
    assert find_content(data).box.tolist() == [[0, 0, 0], [60, 50, 40]]


def test_text_in_one_slice_of_the_fill_makes_no_content() -> None:
    data = large_padded()
    data[20:50, 10:14, 50] = 900
    assert find_content(data).box.tolist() == [[9, 0, 0], [69, 50, 40]]
    data[20:50, 10:14, 54] = 900
    assert find_content(data).box.tolist() == [[9, 0, 0], [69, 50, 40]]


def test_a_part_behind_a_gap_of_air_is_content() -> None:
    data = large_padded()
    data[20:50, 10:14, 52:55] = 900
    assert find_content(data).box[1].tolist() == [69, 50, 55]


def test_a_small_part_of_the_body_at_the_border_is_content() -> None:
    data = large_padded()
    data[30:34, 20:24, 53:] = 300  # 0.5 % of the planes
    assert find_content(data).box[1].tolist() == [69, 50, 55]


def test_a_plain_block_in_air_is_no_fill() -> None:
    data = np.full(SHAPE, -1000.0)
    data[2:10, 1:7, 3:6] = 40
    assert find_content(data).box.tolist() == [[2, 1, 3], [10, 7, 6]]


def test_a_single_slice_and_a_constant_scan_are_left_whole() -> None:
    assert find_content(padded(0, ((0, 0),) * 3)[:, :, :1]).box.tolist() == [[0, 0, 0], [12, 10, 1]]
    assert (np.diff(find_content(np.zeros(SHAPE)).box, axis=0) >= 1).all()


@pytest.mark.parametrize("weights", [(), (1.0, 0.9)])
@pytest.mark.parametrize("single", [(), (1,)])
def test_fill_gets_no_label_and_does_not_count_for_the_largest_part(weights, single) -> None:
    values = np.zeros((2, *SHAPE), np.float32)
    values[0] = 0.4
    values[1, :6] = 0.6  # large, but in the fill
    values[1, 8:11, 2:5, 2:5] = 0.6
    slab = Slab(values, tuple(slice(0, n) for n in SHAPE), SHAPE)
    planes = [np.ones(n, dtype=bool) for n in SHAPE]
    planes[0][:7] = False
    content = Content(tuple(planes))
    label = Postprocessing(weights, single).label_map([slab], np.eye(4), content)
    assert not label[:7].any() and label.sum() == 27


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(2).normal(300, 80, shape)


def mask_of(content: Content) -> np.ndarray:
    """Where a scan shows nothing."""
    return np.stack([content.fill_of(plane) for plane in range(content.shape[0])])


def turned(values: np.ndarray, fill: float, *angles: float) -> np.ndarray:
    for axes, angle in zip([(0, 1), (1, 2)], angles, strict=False):
        values = ndimage.rotate(values, angle, axes, order=1, cval=fill)
    return values


@pytest.mark.parametrize("fill", [0, -1000])
@pytest.mark.parametrize("angles", [(3,), (30,), (20, 15), (45, 5)])
def test_a_canvas_round_a_turned_scan_is_fill(fill: float, angles: tuple[float, ...]) -> None:
    data = turned(noise((40, 36, 30)), fill, *angles)
    inside = turned(np.ones((40, 36, 30)), 0, *angles)
    found = mask_of(find_content(data))
    assert not found[inside > 0.01].any()
    deep = ndimage.distance_transform_edt(inside < 0.01) > 1.5
    assert np.count_nonzero(~found & deep) <= 0.03 * deep.sum()


@pytest.mark.parametrize("fill", [0, -2000])
def test_the_ring_round_a_field_of_view_is_fill(fill: float) -> None:
    x, y, _ = np.indices((40, 36, 12))
    ring = np.hypot((x - 20) / 20, (y - 18) / 18) > 1
    data = np.where(ring, fill, noise((40, 36, 12)))
    found = mask_of(find_content(data))
    assert not found[~ring].any()
    assert found[ring].mean() > 0.9 and not find_content(data).with_margin(2).is_all


def test_constant_slices_inside_a_scan_are_fill() -> None:
    data = noise((40, 36, 12))
    data[:, :, 5:7], data[:, :, 9] = 0, 77
    expected = np.zeros(data.shape, dtype=bool)
    expected[:, :, 5:7], expected[:, :, 9] = True, True
    assert (mask_of(find_content(data)) == expected).all()


def test_two_constants_side_by_side_are_fill() -> None:
    data = noise((40, 36, 22))
    data[:, :, :10] = 0
    data[:17, :, :10] = -1024
    found = mask_of(find_content(data))
    assert found.all(axis=(0, 1)).tolist() == [True] * 10 + [False] * 12


def test_text_over_a_fifth_of_a_plane_of_fill_is_fill() -> None:
    data = np.pad(noise((40, 36, 12)), ((0, 0), (0, 0), (0, 6)))
    data[2:38, 4:12, 15] = 255
    data[2:38:3, 4:12, 15] = 200
    assert find_content(data).box[1].tolist() == [40, 36, 12]


def phantom(air: float, organ: float) -> np.ndarray:
    """A body with an organ that reaches the first and the last slice, in plain air."""
    x, y, _ = np.indices((48, 40, 16))
    body = np.hypot((x - 24) / 20, (y - 20) / 16) < 1
    inner = np.hypot(x - 30, y - 20) < 7
    return np.where(inner, organ, np.where(body, noise((48, 40, 16)), air))


@pytest.mark.parametrize(("air", "organ"), [(-1024, -1024), (-160, -160), (0, 0), (-1000, 0)])
def test_air_that_a_body_encloses_is_content(air: float, organ: float) -> None:
    """Lungs of a clipped CT, gas in bowel, ventricles of a brain without its skull."""
    content = find_content(phantom(air, organ)).with_margin(1)
    found = mask_of(content)
    x, y, _ = np.indices(found.shape)
    body = np.hypot((x - 24) / 20, (y - 20) / 16) < 1
    assert not found[body].any()
    beside = ndimage.binary_dilation(body, np.ones((3, 3, 3)))
    part = tuple(slice(first, stop) for first, stop in content.box.T)
    assert not (found & beside)[part].any()  # where outlines may lie
    assert found[:2].all() and found[-2:].all()


@pytest.mark.parametrize("levels", [2, 8, 200])
def test_equal_values_by_chance_are_content(levels: int) -> None:
    coarse = np.random.default_rng(3).integers(0, levels, (40, 36, 20))
    assert not mask_of(find_content(coarse)).any()


def test_what_shows_nothing_is_kept_in_a_few_bytes() -> None:
    content = find_content(turned(noise((60, 50, 40)), 0, 20, 10))
    text = json.dumps(content.to_dict())
    assert (mask_of(Content.from_dict(json.loads(text))) == mask_of(content)).all()
    assert len(text) < 0.1 * np.prod(content.shape)


def test_of_two_scans_of_a_grid_either_may_show_something() -> None:
    first, second = noise((40, 36, 12)), noise((40, 36, 12))
    first[:12, :10], second[:6] = 0, 0
    found = mask_of(Content.join([find_content(first), find_content(second)]))
    assert found[:6, :10].all() and found.sum() == 6 * 10 * 12


def test_where_labels_of_a_run_lie_in_fill_it_may_hold_classes(unpaired_files, tmp_path) -> None:
    """A class of air, or lungs of clipped scans that end there."""
    manifest = unpaired_files
    for case in manifest.split("train"):
        for modality in case.images:
            image = nib.load(case.images[modality])
            values = image.get_fdata()
            values[:8, :, :4] = values.min()
            outlined = nib.load(case.labels[modality])
            label = np.asarray(outlined.dataobj).copy()
            label[:3, :9, :2] = 3
            nib.save(nib.Nifti1Image(values, image.affine), tmp_path / f"{case.id}.nii")
            nib.save(nib.Nifti1Image(label, outlined.affine), tmp_path / f"{case.id}_label.nii")
    cases = tuple(
        replace(
            case,
            images={m: tmp_path / f"{case.id}.nii" for m in case.images},
            labels={m: tmp_path / f"{case.id}_label.nii" for m in case.labels},
        )
        for case in manifest.split("train")
    )
    replace(manifest, cases=cases, path=None).save(tmp_path / "dataset.json")
    run = trained(tmp_path / "dataset.json", tmp_path / "run", "--method", "sup")
    found = Predictor(run).models[0]
    assert all(seen.sizes.fill_margin is None for seen in found.seen.values())
    plain = trained(manifest.path, tmp_path / "plain", "--method", "sup")
    assert all(s.sizes.fill_margin == 0 for s in Predictor(plain).models[0].seen.values())
    content = find_content(padded(0, ((5, 5), (5, 5), (0, 0))))
    scan = PreparedScan(np.zeros(SHAPE), Grid(SHAPE, np.eye(4)), 0, np.zeros((2, 3)), content)
    assert shown_part([found], scan, "mr") is None
    assert shown_part(Predictor(plain).models, scan, "mr") is content


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_fill_ends_before_outlines_that_reach_into_it(margin) -> None:
    """As those of a brain without its skull do, by a voxel or two."""
    data = phantom(0, 400)
    content = find_content(data).with_margin(margin)
    body = ndimage.binary_dilation(data != 0, np.ones((2 * margin + 1,) * 3))
    part = tuple(slice(first, stop) for first, stop in content.box.T)
    found = mask_of(content)[part]
    assert not found[body[part]].any() and found[~body[part]].mean() > 0.7
