from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from crossvox.data.manifest import Manifest, load_manifest
from crossvox.data.phantom import LABELS, write_phantom
from crossvox.errors import UsageError

TINY = (36, 28, 16)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def array(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def at_voxels_of(target: Path, source: Path) -> np.ndarray:
    """`source` looked up at the world positions of `target`'s voxels, nearest voxel."""
    grid, other = nib.load(target), nib.load(source)
    matrix = np.linalg.inv(other.affine) @ grid.affine
    voxels = np.indices(grid.shape).reshape(3, -1)
    where = matrix[:3, :3] @ voxels + matrix[:3, 3:]
    return map_coordinates(array(source), where, order=0, mode="constant").reshape(grid.shape)


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out = tmp_path_factory.mktemp("unpaired")
    return load_manifest(write_phantom(out, train=3, val=1, test=1, shape=TINY))


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out = tmp_path_factory.mktemp("registered")
    return load_manifest(write_phantom(out, train=1, val=0, test=0, paired=True, registered=True))


@pytest.fixture(scope="module")
def displaced(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    out = tmp_path_factory.mktemp("displaced")
    return load_manifest(write_phantom(out, train=1, val=0, test=0, paired=True))


def test_same_seed_same_bytes_and_another_seed_another_subject(tmp_path: Path) -> None:
    counts = {"train": 1, "val": 0, "test": 0, "shape": TINY}
    write_phantom(tmp_path / "a", **counts)
    write_phantom(tmp_path / "b", **counts)
    write_phantom(tmp_path / "c", seed=1, **counts)
    first, again, other = (hashes(tmp_path / name) for name in "abc")
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".nii.gz"))


def test_a_subject_does_not_depend_on_the_counts(tmp_path: Path, unpaired: Manifest) -> None:
    path = write_phantom(tmp_path, train=1, val=2, test=0, shape=TINY)
    few = hashes(path.parent / "ct") | hashes(path.parent / "mr")
    root = unpaired.path.parent
    many = hashes(root / "ct") | hashes(root / "mr")
    assert len(few) == 12
    assert few.items() <= many.items()


def test_all_scans_differ(unpaired: Manifest) -> None:
    seen = hashes(unpaired.path.parent)
    assert len(set(seen.values())) == len(seen)


def test_unpaired_subjects_have_one_modality_each(unpaired: Manifest) -> None:
    assert unpaired.modalities == {"ct": "ct", "mr": "mr"}
    for split, count in {"train": 3, "val": 1, "test": 1}.items():
        cases = unpaired.split(split)
        for modality in ("ct", "mr"):
            assert [tuple(case.images) for case in cases].count((modality,)) == count
        assert all(case.images.keys() == case.labels.keys() for case in cases)


def test_paired_subjects_have_both_on_grids_of_their_own(displaced: Manifest) -> None:
    (case,) = displaced.cases
    assert set(case.images) == set(case.labels) == {"ct", "mr"}
    assert not displaced.registered
    ct, mr = (nib.load(case.images[modality]) for modality in ("ct", "mr"))
    assert not np.allclose(ct.header.get_zooms(), mr.header.get_zooms())
    extents = [np.multiply(scan.shape, scan.header.get_zooms()) for scan in (ct, mr)]
    assert np.all(extents[1][:2] < extents[0][:2])


def test_label_and_image_share_one_grid_with_codes_and_full_rank(unpaired: Manifest) -> None:
    for case in unpaired.cases:
        for modality in case.images:
            image, label = nib.load(case.images[modality]), nib.load(case.labels[modality])
            assert image.shape == label.shape
            assert np.array_equal(image.affine, label.affine)
            assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
            assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)
            assert np.all(np.asarray(image.header.get_zooms()) > 0)
            assert np.issubdtype(label.get_data_dtype(), np.integer)


def test_files_come_in_several_orientations_and_off_the_origin(unpaired: Manifest) -> None:
    affines = [nib.load(path).affine for c in unpaired.cases for path in c.images.values()]
    assert len({nib.aff2axcodes(affine) for affine in affines}) > 1
    assert len({tuple(affine[:3, 3]) for affine in affines}) == len(affines)


def test_every_class_is_in_every_label_and_nothing_else(unpaired: Manifest) -> None:
    assert unpaired.labels == LABELS
    for case in unpaired.cases:
        (path,) = case.labels.values()
        assert set(np.unique(array(path))) == {0, *LABELS.values()}


def test_the_liver_is_largest_and_on_the_right(unpaired: Manifest) -> None:
    for case in unpaired.cases:
        (path,) = case.labels.values()
        label = array(path)
        world = {
            name: (nib.affines.apply_affine(nib.load(path).affine, np.argwhere(label == value)))
            for name, value in LABELS.items()
        }
        assert max(world, key=lambda name: len(world[name])) == "liver"
        centres = {name: points.mean(axis=0) for name, points in world.items()}
        assert centres["liver"][0] > centres["spleen"][0]
        assert centres["right kidney"][0] > centres["left kidney"][0]


def test_contrast_of_the_modalities_is_no_monotone_map(registered: Manifest) -> None:
    (case,) = registered.cases
    ct = array(case.images["ct"])
    mr = at_voxels_of(case.images["ct"], case.images["mr"])
    inside = mr > 0
    organs = inside & (ct > 20) & (array(case.labels["ct"]) > 0)
    bone = inside & (ct > 350)
    air = inside & (ct < -900)
    assert bone.sum() > 100
    assert np.median(mr[bone]) < 0.6 * np.median(mr[organs])  # brightest in CT, dark in MR
    assert np.median(mr[air]) < 0.6 * np.median(mr[organs])


def test_intensities_look_like_hounsfield_units_and_like_magnitudes(unpaired: Manifest) -> None:
    scales = []
    for case in unpaired.cases:
        ((modality, path),) = case.images.items()
        image, label = array(path), array(case.labels[modality])
        if modality == "ct":
            assert image.min() < -900
            assert image.max() > 300
            assert 60 < np.median(image[label == LABELS["liver"]]) < 140
        else:
            assert image.min() >= 0
            scales.append(np.median(image[label == LABELS["liver"]]))
    assert max(scales) > 1.5 * min(scales)


def test_ct_organs_overlap_in_intensity(unpaired: Manifest) -> None:
    case = next(case for case in unpaired.cases if "ct" in case.images)
    image, label = array(case.images["ct"]), array(case.labels["ct"])
    liver = np.percentile(image[label == LABELS["liver"]], [10, 90])
    background = image[(label == 0) & (image > liver[0]) & (image < liver[1])]
    assert len(background) > 0.5 * (label == LABELS["liver"]).sum()


def overlap(manifest: Manifest) -> float:
    (case,) = manifest.cases
    ct = array(case.labels["ct"])
    mr = at_voxels_of(case.labels["ct"], case.labels["mr"])
    same = [2 * np.sum((ct == v) & (mr == v)) for v in LABELS.values()]
    both = [np.sum(ct == v) + np.sum(mr == v) for v in LABELS.values()]
    return float(np.mean(np.divide(same, both)))


def test_modalities_are_misaligned_unless_registered(
    registered: Manifest, displaced: Manifest
) -> None:
    assert registered.registered
    assert overlap(registered) > 0.85
    assert 0.3 < overlap(displaced) < overlap(registered) - 0.08


def test_being_registered_changes_only_the_second_modality(
    registered: Manifest, displaced: Manifest
) -> None:
    first, second = (hashes(manifest.path.parent) for manifest in (registered, displaced))
    changed = {name for name in first if first[name] != second[name]}
    assert {name.split("/")[0] for name in changed} == {"mr", "dataset.json"}


def test_registered_needs_paired(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="paired"):
        write_phantom(tmp_path / "out", registered=True)
    assert not (tmp_path / "out").exists()
