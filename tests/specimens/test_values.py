"""Values that are not what the kind of a modality says, and values that are no data."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from crossvox.data.checks import check_images
from crossvox.data.formats.nifti import as_image, as_volume, read_image, read_nifti
from crossvox.data.geometry import Grid
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import DataError

SHAPE, AFFINE = (40, 36, 16), np.diag([6.0, 6.0, 8.0, 1.0])
LARGEST = float(np.finfo(np.float32).max)

pytestmark = pytest.mark.specimen("values")


def body(air: float, fat: float, organ: float, noise: float) -> np.ndarray:
    """An elliptic body with an organ in air."""
    x, y, _ = np.indices(SHAPE)
    radius = ((x - 20) / 17) ** 2 + ((y - 18) / 15) ** 2
    inner = np.hypot(x - 25, y - 20) < 6
    values = np.select([inner, radius < 1], [organ, fat], air)
    return values + np.random.default_rng(0).normal(0, noise, SHAPE)


def ct() -> np.ndarray:
    return np.maximum(body(-1000, -90, 60, 15).round(), -1024)


def mr() -> np.ndarray:
    return np.maximum(body(10, 400, 700, 25).round(), 0)


def save(path: Path, values: np.ndarray, dtype=np.float32) -> Path:
    image = nib.Nifti1Image(values.astype(dtype), AFFINE)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def problems(path: Path, kind: str) -> list[tuple[str, str]]:
    found = check_images({kind: path}, kinds={kind: kind})
    return [(problem.severity, problem.line) for problem in found]


NO_HOUNSFIELD = {
    "+ 1024, unsigned": (lambda v: v + 1024, np.uint16, "error", "subtract 1024"),
    "+ 1000, signed": (lambda v: v + 1000, np.int16, "error", "subtract 1024"),
    "+ 1024, padded below": (
        lambda v: np.where(np.indices(SHAPE)[0] < 3, -976, v + 1024), np.int16, "error", "above 850"
    ),
    "+ 32768": (lambda v: v + 32768, np.uint16, "error", "above 3100"),
    "0 to 1": (lambda v: (v + 1024) / 4095, np.float32, "error", "as if scaled"),
    "-1 to 1": (lambda v: np.clip(v / 1000, -1, 1), np.float32, "error", "as if scaled"),
    "z-score": (lambda v: (v - v.mean()) / v.std(), np.float32, "error", "as if scaled"),
    "8 bits": (
        lambda v: np.clip((v + 160) / 400 * 255, 0, 255), np.uint8, "warning", "none below 0"
    ),
    "8 bits, all used": (
        lambda v: (v - v.min()) / np.ptp(v) * 255, np.uint8, "error", "a picture of 8 bits"
    ),
    "all 16 bits": (lambda v: (v + 1024) * 30, np.uint16, "error", "above 3100"),
    "+ 160, clipped": (lambda v: np.clip(v, -160, 240) + 160, np.int16, "warning", "none below 0"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_HOUNSFIELD)
def test_a_ct_without_hounsfield_units_is_told(tmp_path, name) -> None:
    change, dtype, severity, words = NO_HOUNSFIELD[name]
    *_, (found, line) = problems(save(tmp_path / "scan.nii", change(ct()), dtype), "ct")
    assert found == severity and words in line


@pytest.mark.parametrize("low", [-2000, -1024, -500, -160, -125])
def test_a_ct_with_hounsfield_units_is_not(tmp_path, low) -> None:
    values = np.maximum(ct(), low)
    values[:2] = low
    values[25:28, 20:22, 4:6] = np.linspace(300, 1500, 12).reshape(3, 2, 2)  # bone
    assert problems(save(tmp_path / "scan.nii", values, np.int16), "ct") == []


def test_subtracting_1024_as_proposed_gives_the_scan_back(tmp_path) -> None:
    wrong = save(tmp_path / "wrong.nii", ct() + 1024, np.uint16)
    ((_, line),) = problems(wrong, "ct")
    assert "subtract 1024" in line
    right = save(tmp_path / "right.nii", np.asanyarray(nib.load(wrong).dataobj) - 1024.0)
    assert problems(right, "ct") == [] and np.array_equal(read_image(right).data, ct())


def manifest(folder: Path, kind: str) -> Path:
    save(folder / "a.nii", ct(), np.int16)
    content = {
        "name": "m", "modalities": {"x": {"kind": kind}}, "labels": {"organ": 1},
        "cases": [{"id": "a", "split": "train", "images": {"x": "a.nii"}}],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


@pytest.mark.parametrize("kind", ["CT", "Ct", " ct "])
def test_capitals_of_a_kind_do_not_matter(tmp_path, kind) -> None:
    assert load_manifest(manifest(tmp_path, kind)).modalities == {"x": "ct"}
    case = Case("a", "train", {"x": Path("a.nii")})
    assert Manifest("m", {"x": kind}, {"organ": 1}, (case,)).modalities == {"x": "ct"}


@pytest.mark.parametrize(("kind", "hint"), [("CTT", "'ct'"), ("ct scan", "'ct'"), ("mri", "'mr'")])
def test_another_name_is_no_kind(tmp_path, kind, hint) -> None:
    with pytest.raises(DataError, match=rf"modalities\.x\.kind.*mean {hint}.*the kinds are ct, mr"):
        load_manifest(manifest(tmp_path, kind))


def prepared(data: np.ndarray, kind: str = "mr") -> np.ndarray:
    grid = Grid(data.shape, AFFINE)
    return Preprocessing(np.eye(3), (6, 6, 8), {"m": kind}).prepare_image(data, grid, "m").array


def corner(values: np.ndarray, fill: float) -> np.ndarray:
    """Fill where there is only air."""
    x, y, _ = np.indices(SHAPE)
    return np.where((x < 6) & (y < 7), fill, values)


def ring(values: np.ndarray, fill: float) -> np.ndarray:
    x, y, _ = np.indices(SHAPE)
    return np.where(((x - 20) / 20) ** 2 + ((y - 18) / 18) ** 2 > 1, fill, values)


@pytest.mark.parametrize("place", [corner, ring])
@pytest.mark.parametrize("fill", [-LARGEST, -1e30, 1e30, LARGEST, -32768, 32767, 65535, -9999])
@pytest.mark.parametrize(("kind", "scan"), [("mr", mr), ("ct", ct)])
def test_no_data_counts_as_air_and_is_told(tmp_path, kind, scan, fill, place) -> None:
    plain = scan()
    path = save(tmp_path / "scan.nii", place(plain, fill))
    ((severity, line),) = problems(path, kind)
    assert severity == "warning" and f"voxels of {fill:g}" in line
    is_fill = place(plain, np.nan) != plain
    lowest = plain[~is_fill].min()
    assert np.array_equal(read_image(path).data, np.where(is_fill, lowest, plain))
    expected = prepared(np.where(is_fill, lowest, plain).astype(np.float32), kind)
    assert np.array_equal(prepared(read_image(path).data, kind), expected)


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [corner, ring])
def test_nan_round_a_scan_is_fill(tmp_path, fill, place) -> None:
    path = save(tmp_path / "scan.nii", place(mr(), fill))
    ((severity, line),) = problems(path, "mr")
    assert severity == "warning" and "NaN or Inf, at its border" in line
    assert np.isfinite(read_image(path).data).all()


@pytest.mark.parametrize("fill", [np.nan, np.inf])
@pytest.mark.parametrize("size", [1, 4])
def test_nan_in_the_body_is_refused(tmp_path, fill, size) -> None:
    values = mr()
    values[20 : 20 + size, 18, 8] = fill
    ((severity, line),) = problems(save(tmp_path / "scan.nii", values), "mr")
    assert severity == "error" and f"{size} of 23040 voxels NaN or Inf" in line


@pytest.mark.parametrize("factor", [2.0**-60, 1e-20, 1e-9, 1e-6, 1e3, 1e9, 1e20, 1e30, 2.0**100])
def test_the_unit_of_an_mr_does_not_matter(factor) -> None:
    plain = mr()
    found = prepared((plain * factor).astype(np.float32))
    np.testing.assert_allclose(found, prepared(plain.astype(np.float32)), atol=1e-4)


@pytest.mark.parametrize("share", [0.001, 0.012])
def test_spikes_and_metal_do_not_disturb_the_others(tmp_path, share) -> None:
    plain = mr()
    spikes = np.random.default_rng(1).random(SHAPE) < share
    spikes[20:24, 18:22, 8:10] = True
    path = save(tmp_path / "scan.nii", np.where(spikes, 65535, plain), np.uint16)
    assert problems(path, "mr") == []
    found, expected = prepared(read_image(path).data), prepared(plain.astype(np.float32))
    np.testing.assert_allclose(found[~spikes], expected[~spikes], atol=0.35)


def test_an_ordinary_scan_is_not_touched() -> None:
    for values in (mr(), ct(), body(0, 5, 9, 2)):
        data = values.astype(np.float32)
        assert as_volume((data, AFFINE)).data is data


def test_two_kinds_of_no_data_are_both_told(tmp_path) -> None:
    values = corner(mr(), -32768)
    values[-2:] = 1e30
    ((severity, line),) = problems(save(tmp_path / "scan.nii", values), "mr")
    assert severity == "warning" and "1e+30" in line and "-32768" in line
    assert as_image(read_nifti(tmp_path / "scan.nii")).data.min() == mr().min()


def test_values_beyond_single_precision_are_refused(tmp_path) -> None:
    ((severity, line),) = problems(save(tmp_path / "scan.nii", mr() * 1e40, np.float64), "mr")
    assert severity == "error" and "single precision" in line


def test_the_same_is_said_of_an_array_as_of_its_file(tmp_path) -> None:
    from crossvox.data.formats.nifti import open_scan
    from crossvox.inference.ensemble import ScanWarning, judge

    class Model:
        preprocessing = Preprocessing(np.eye(3), (6, 6, 8), {"mr": "mr", "ct": "ct"})
        seen: dict = {}

    values = mr().astype(np.float32)
    values[20, 18, 8] = np.nan
    path = save(tmp_path / "scan.nii", values)
    for scan in (path, str(path), (values, AFFINE)):
        with pytest.raises(DataError, match="1 of 23040 voxels NaN or Inf"):
            judge(open_scan(scan, Path("scan")), Model(), "mr")
    filled = corner(mr(), -LARGEST).astype(np.float32)
    for scan in (save(tmp_path / "filled.nii", filled), (filled, AFFINE)):
        with pytest.warns(ScanWarning, match="far beyond the others"):
            judge(open_scan(scan, Path("scan")), Model(), "mr")
    with pytest.raises(DataError, match="subtract 1024"):
        judge(open_scan(((ct() + 1024), AFFINE), Path("scan")), Model(), "ct")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge(open_scan((ct(), AFFINE), Path("scan")), Model(), "ct")


def bone(share: float) -> np.ndarray:
    """A crop of cortical bone in soft tissue."""
    random = np.random.default_rng(2)
    tissue, dense = random.normal(45, 15, SHAPE), random.normal(1250, 200, SHAPE)
    return np.where(random.random(SHAPE) < share, dense, tissue).round()


def padded(fill: float) -> np.ndarray:
    return ring(ct(), fill)


def padded_twice() -> np.ndarray:
    values = padded(-2000)
    values[0, 0, 0] = -2048
    return values


def with_rounding(values: np.ndarray) -> np.ndarray:
    return values + np.random.default_rng(3).uniform(-1e-3, 1e-3, SHAPE)


def resampled(values: np.ndarray, order: int) -> np.ndarray:
    return ndimage.zoom(values.astype(np.float64), (1.2, 1.2, 1), order=order)


@pytest.mark.parametrize("fill", [-1500, -2000, -3024])
def test_padding_of_a_ct_is_no_missing_rescale(tmp_path, fill) -> None:
    changed = padded(fill), with_rounding(padded(fill)), resampled(padded(fill), 3), padded_twice()
    for values in changed:
        found = problems(save(tmp_path / "scan.nii", values), "ct")
        assert not [line for severity, line in found if severity == "error"], found


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_crop_of_bone_is_not_refused(tmp_path, share) -> None:
    ((severity, line),) = problems(save(tmp_path / "scan.nii", bone(share), np.int16), "ct")
    assert severity == "warning" and "subtract" not in line and "crop of bone" in line


def test_a_crop_of_liver_is_not_refused(tmp_path) -> None:
    values = np.random.default_rng(0).integers(40, 66, SHAPE)
    ((severity, line),) = problems(save(tmp_path / "scan.nii", values, np.int16), "ct")
    assert severity == "warning" and "cropped" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: -v, "negated"),
        (lambda v: (v - v.mean()) / v.std() * 100, "none like air"),
        (lambda v: np.clip((v + 160) / 400 * 255, 0, 255).round() - 128, "8 bits|above 100"),
    ],
    ids=["negated", "z-score x 100", "8 bits - 128"],
)
def test_values_that_show_no_air_of_a_ct_are_told(tmp_path, change, words) -> None:
    values = ct()
    values[25:28, 20:22, 4:6] = np.linspace(300, 1500, 12).reshape(3, 2, 2)  # bone
    found = problems(save(tmp_path / "scan.nii", change(values)), "ct")
    assert found and re.search(words, found[0][1])


def test_a_negated_ct_of_little_air_is_told(tmp_path) -> None:
    values = ct()[6:35, 6:31]
    values[19:22, 14:16, 4:10] = np.linspace(300, 1500, 36).reshape(3, 2, 6)  # bone
    ((severity, line),) = problems(save(tmp_path / "scan.nii", -values), "ct")
    assert severity == "warning" and "negated" in line
    assert problems(save(tmp_path / "right.nii", values), "ct") == []


@pytest.mark.parametrize("factor", [5, 10, 20])
def test_scaled_hounsfield_units_are_refused(tmp_path, factor) -> None:
    values = ct()
    values[25:28, 20:22, 4:6] = np.linspace(300, 1500, 12).reshape(3, 2, 2)  # bone
    found = problems(save(tmp_path / "scan.nii", values * factor), "ct")
    assert "error" in [severity for severity, _ in found]


def test_blank_slices_between_others_are_told(tmp_path) -> None:
    values = mr()
    values[..., 1::2] = 0
    [(severity, text)] = problems(save(tmp_path / "scan.nii", values), "mr")
    assert severity == "warning" and "slices of one value between others" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data, affine: (data * 1j, affine), "complex"),
        (lambda data, affine: (data * 1e300, affine), "too large"),
        (lambda data, affine: (data, affine + np.eye(4)[[3, 0, 1, 2]].T), "last row"),
    ],
)
def test_arrays_that_are_no_scan_are_refused(change, words) -> None:
    with pytest.raises(DataError, match=words):
        as_volume(change(mr(), AFFINE))


def test_masked_voxels_are_no_data() -> None:
    mask = corner(np.zeros(SHAPE), 1) > 0
    masked = np.ma.MaskedArray(corner(mr(), 5000), mask)
    expected = np.where(mask, mr()[~mask].min(), mr())
    assert np.array_equal(as_volume((masked, AFFINE)).data, expected)


@pytest.mark.parametrize("fill", [-32768, 32767])
@pytest.mark.parametrize(
    "smear", [lambda v: resampled(v, 1), lambda v: ndimage.gaussian_filter(v, 0.7)]
)
def test_fill_that_was_smeared_is_no_data(tmp_path, fill, smear) -> None:
    path = save(tmp_path / "scan.nii", smear(ring(mr(), fill)))
    ((severity, line),) = problems(path, "mr")
    assert severity == "warning" and "far beyond the others" in line
    data = read_image(path).data
    assert data.min() > -400 and data.max() < 4000


@pytest.mark.parametrize("fill", [-1000, -1024, -200])
def test_a_negative_ring_round_an_mr_is_no_data(tmp_path, fill) -> None:
    path = save(tmp_path / "scan.nii", ring(mr(), fill))
    ((severity, line),) = problems(path, "mr")
    assert severity == "warning" and f"voxels of {fill}" in line
    assert read_image(path).data.min() == 0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rare", [-9999, -20000, -5000])
def test_rarer_fill_beside_the_common_is_no_data(order, rare) -> None:
    values = np.tile(ring(mr(), -32768), (2, 2, 4)).astype(np.float32, order=order)
    values[1, 1, 1:4] = rare
    assert as_volume((values, AFFINE)).data.min() == 0


ODD_FILL = {"zeros": 0, "white": 255, "bone": 1000}


def turned(values: np.ndarray, fill: float) -> np.ndarray:
    return ndimage.rotate(values, 30, order=1, cval=fill)


@pytest.mark.parametrize("name", ODD_FILL)
@pytest.mark.parametrize("place", [ring, turned])
def test_bright_fill_round_a_ct_counts_as_air(tmp_path, name, place) -> None:
    fill = ODD_FILL[name]
    path = save(tmp_path / "scan.nii", place(ct(), fill))
    ((severity, line),) = problems(path, "ct")
    assert severity == "warning" and f"voxels of {fill} round the scan" in line
    data, inside = read_image(path).data, place(np.ones(SHAPE), 0) > 0.999
    assert np.array_equal(data[inside], place(ct(), fill)[inside].astype(np.float32))
    outside = ~ndimage.binary_dilation(inside, iterations=2)
    assert (data[outside] < -900).mean() > 0.98


def test_zeros_beside_air_round_a_ct_count_as_air(tmp_path) -> None:
    values = np.pad(ct(), ((0, 0), (0, 0), (0, 8)), constant_values=-1024)
    values[:14, :, -8:] = 0
    ((severity, line),) = problems(save(tmp_path / "scan.nii", values), "ct")
    assert severity == "warning" and "voxels of 0 round the scan" in line
    assert (read_image(tmp_path / "scan.nii").data[:14, :, -8:] < -900).all()


@pytest.mark.parametrize("place", [ring, turned])
def test_grey_fill_round_an_mr_counts_as_air(tmp_path, place) -> None:
    path = save(tmp_path / "scan.nii", place(mr(), 255))
    ((severity, line),) = problems(path, "mr")
    assert severity == "warning" and "voxels of 255 round the scan" in line
    outside = ~ndimage.binary_dilation(place(np.ones(SHAPE), 0) > 0.999, iterations=2)
    assert (read_image(path).data[outside] < 1).mean() > 0.98


@pytest.mark.parametrize("fill", [-1000, -200])
@pytest.mark.parametrize(
    "smear", [lambda v: resampled(v, 1), lambda v: ndimage.rotate(v, 20, order=1, cval=v[0, 0, 0])]
)
def test_a_smeared_negative_ring_round_an_mr_is_no_data(tmp_path, fill, smear) -> None:
    path = save(tmp_path / "scan.nii", smear(ring(mr(), fill)))
    ((severity, line),) = problems(path, "mr")
    assert severity == "warning" and f"voxels of {fill}" in line
    assert read_image(path).data.min() > -20


@pytest.mark.parametrize("kind", ["dark CT", "zeros round an MR", "z-score with zeros", "no fill"])
def test_ordinary_fill_is_left_and_not_told(tmp_path, kind) -> None:
    values, name = {
        "dark CT": (ring(ct(), -1024), "ct"),
        "zeros round an MR": (ring(mr() + 80, 0), "mr"),
        "z-score with zeros": (ring((mr() - 400) / 200, 0), "mr"),
        "no fill": (ct(), "ct"),
    }[kind]
    path = save(tmp_path / "scan.nii", values)
    assert problems(path, name) == []
    assert np.array_equal(read_image(path).data, values.astype(np.float32))
