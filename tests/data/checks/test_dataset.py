from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.checks import (
    Problem,
    check,
    check_images,
    check_manifest,
    format_problems,
    raise_on_errors,
)
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.errors import DataError
from fixtures.files.data import AFFINE, SHAPE, label, patch_header, scan, write_dataset, write_nifti
from fixtures.paths import SHARED

SHARED = SHARED / "data"


@pytest.fixture
def data(tmp_path: Path) -> Manifest:
    return write_dataset(tmp_path, {"train": 2, "val": 1})


@pytest.fixture
def plain(tmp_path: Path) -> Manifest:
    return write_dataset(tmp_path, {"train": 2, "val": 1}, kind=".nii")


def image_of(manifest: Manifest, case: str = "train0", modality: str = "ct") -> Path:
    return manifest.case(case).images[modality]


def label_of(manifest: Manifest, case: str = "train0", modality: str = "ct") -> Path:
    return manifest.case(case).labels[modality]


def only(problems: list[Problem], *words: str, severity: str = "error") -> Problem:
    """The one problem there is, which must say all the words."""
    assert len(problems) == 1, format_problems(problems)
    assert problems[0].severity == severity
    for word in words:
        assert word in str(problems[0])
    return problems[0]


def with_case(manifest: Manifest, name: str, **changes: object) -> Manifest:
    cases = tuple(
        dataclasses.replace(case, **changes) if case.id == name else case  # type: ignore[arg-type]
        for case in manifest.cases
    )
    return dataclasses.replace(manifest, cases=cases)


def test_sound_data_have_no_problem(data: Manifest, plain: Manifest) -> None:
    assert check(data) == []
    assert check(plain) == []
    assert format_problems([]) == "no problems found"
    raise_on_errors([])


def test_spaces_and_foreign_letters_in_paths(tmp_path: Path) -> None:
    assert check(write_dataset(tmp_path / "Ärzte 患者" / "a b", {"train": 1})) == []


def test_the_line_names_case_file_found_expected_fix(data: Manifest) -> None:
    image_of(data).unlink()
    assert str(only(check(data))) == (
        "error    train0 ct  images/train0_ct.nii.gz: found no such file; "
        "expected a .nii or .nii.gz file; fix: correct its path or put the file there"
    )


def test_all_problems_are_told_at_once(data: Manifest) -> None:
    image_of(data).unlink()
    write_nifti(label_of(data, "train1"), label(1, 4, 9))
    write_nifti(image_of(data, "val0", "mr"), np.full(SHAPE, 7, np.int16))
    write_nifti(label_of(data, "val0"), label())
    problems = check(data)
    told = [(p.severity, p.case, p.modality, p.file) for p in problems]
    assert told == [
        ("error", "train0", "ct", "images/train0_ct.nii.gz"),
        ("error", "train1", "ct", "labels/train1_ct.nii.gz"),
        ("warning", "val0", "ct", "labels/val0_ct.nii.gz"),
        ("error", "val0", "mr", "images/val0_mr.nii.gz"),
    ]
    lines = format_problems(problems).splitlines()
    assert lines == [*map(str, (problems[0], problems[1], problems[3], problems[2])), lines[-1]]
    assert lines[-1] == "3 errors, 1 warning"
    with pytest.raises(DataError) as caught:
        raise_on_errors(problems)
    assert str(caught.value) == format_problems(problems)


def test_a_broken_manifest_and_its_scans_are_told_in_one_report(data: Manifest) -> None:
    assert data.path is not None
    content = json.loads(data.path.read_text())
    content["remark"] = "not a key"
    broken = {"id": "bad", "split": "trian", "images": {"ct": "nowhere.nii.gz"}}
    content["cases"] += [broken, dict(content["cases"][0], split="val")]
    data.path.write_text(json.dumps(content))
    image_of(data).unlink()
    told = format_problems(check_manifest(data.path)[1])
    assert told.count("\n") == 4 and "4 errors" in told
    for words in ("unknown key 'remark'", '"trian"', "in the splits train and val", "train0 ct"):
        assert words in told


def test_a_manifest_without_a_sound_head_has_no_scans_to_look_at(data: Manifest) -> None:
    assert data.path is not None
    content = json.loads(data.path.read_text())
    data.path.write_text(json.dumps(content | {"labels": {}}))
    image_of(data).unlink()
    only(check_manifest(data.path)[1], "labels")
    data.path.write_text(json.dumps(content))
    only(check_manifest(data.path)[1], "train0 ct", "no such file")


def test_classes_of_broken_cases_do_not_count_as_absent(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 2, "val": 1})
    assert data.path is not None
    content = json.loads(data.path.read_text())
    for case in content["cases"][1:]:
        case["remark"] = "not a key"
    content["labels"]["tail"] = 99
    data.path.write_text(json.dumps(content))
    _, told = check_manifest(data.path)
    assert told and all("unknown key" in str(problem) for problem in told)


def test_warnings_alone_do_not_raise(data: Manifest) -> None:
    write_nifti(label_of(data, "val0"), label())
    problems = check(data)
    raise_on_errors(problems)
    assert format_problems(problems).splitlines()[-1] == "1 warning"


# Files that cannot be read


def test_a_truncated_gzip_file(data: Manifest) -> None:
    path = image_of(data)
    path.write_bytes(path.read_bytes()[:-40])
    only(check(data), "images/train0_ct.nii.gz", "truncated gzip", "copy or export")


def test_a_gzip_file_that_lacks_only_its_checksum(data: Manifest) -> None:
    path = image_of(data)
    path.write_bytes(path.read_bytes()[:-4])
    only(check(data), "truncated gzip")


def test_a_gzip_file_cut_within_the_header(data: Manifest) -> None:
    path = image_of(data)
    path.write_bytes(path.read_bytes()[:15])
    only(check(data), "truncated gzip")


def test_gzip_data_that_do_not_fit_their_checksum(data: Manifest) -> None:
    path = image_of(data)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    only(check(data), "damaged gzip data")


def test_a_truncated_plain_file(plain: Manifest) -> None:
    path = image_of(plain)
    path.write_bytes(path.read_bytes()[:-1])
    only(check(plain), "a truncated file of 591 bytes", "240 bytes of voxels")


def test_a_gzip_file_whose_content_ends_early(data: Manifest) -> None:
    path = image_of(data)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))
    only(check(data), "230 bytes of voxels; expected 240")


@pytest.mark.parametrize("content", [b"", b"DICM" * 50, b"x" * 2000])
def test_a_file_that_is_not_nifti(plain: Manifest, content: bytes) -> None:
    image_of(plain).write_bytes(content)
    word = "NIfTI header" if content else "an empty file"
    only(check(plain), word, "convert it to .nii.gz")


def test_suffix_and_content_must_agree(data: Manifest, tmp_path: Path) -> None:
    path = image_of(data)
    path.write_bytes(gzip.decompress(path.read_bytes()))
    only(check(data), "a .gz file without gzip data", "rename it to .nii")
    shutil.copy(image_of(data, "train1"), tmp_path / "x.nii")
    only(check_images({"ct": tmp_path / "x.nii"}), "gzip data in a .nii file", "rename it")


def test_another_kind_of_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "scan.nrrd").write_bytes(b"NRRD")
    only(check_images({"ct": tmp_path / "scan.nrrd"}), "type .nrrd", "SimpleITK")
    only(check_images({"ct": tmp_path}), "a folder")


def test_a_path_that_the_system_refuses(tmp_path: Path) -> None:
    only(check_images({"ct": tmp_path / ("x" * 300 + ".nii")}), "unreadable (")


def test_a_skipped_image_must_still_be_there_for_its_label(data: Manifest) -> None:
    image_of(data).unlink()
    only(check(data, skip=lambda case, modality: True), "images/train0_ct.nii.gz", "no such file")


def test_empty_files_are_not_taken_for_one_scan(plain: Manifest) -> None:
    for case in ("train0", "val0"):
        image_of(plain, case).write_bytes(b"")
    assert [p.found for p in check(plain)] == ["an empty file"] * 2


def test_a_header_that_contradicts_itself(plain: Manifest) -> None:
    patch_header(image_of(plain), datatype=1234)
    only(check(plain), "contradictory NIfTI header")


def test_a_sign_flag_of_zero_is_no_problem(plain: Manifest) -> None:
    patch_header(image_of(plain), pixdim=[0, 2, 2, 3, 1, 1, 1, 1], sform_code=0, qform_code=1)
    assert check(plain) == []


def test_nifti_2_passes(data: Manifest) -> None:
    nib.save(nib.Nifti2Image(scan(5), AFFINE), image_of(data))
    assert check(data) == []


# Shape, type and geometry


def test_a_4d_image_says_how_to_split(data: Manifest) -> None:
    write_nifti(image_of(data), scan(0, (*SHAPE, 3)))
    only(check(data), "4-D, shape 6×5×4×3; expected a 3-D volume", "four_to_three", "fslsplit")


def test_an_empty_fourth_axis_is_a_warning(data: Manifest) -> None:
    write_nifti(image_of(data), scan(0, (*SHAPE, 1)))
    only(check(data), "6×5×4×1", "squeeze_image", severity="warning")


def test_a_2d_image(data: Manifest) -> None:
    write_nifti(image_of(data, "val0"), scan(0, SHAPE[:2]))
    problems = check(data, labels=())
    only(problems, "2-D, shape 6×5")


def test_an_axis_without_voxels(plain: Manifest) -> None:
    patch_header(image_of(plain), dim=[3, 6, 0, 4, 1, 1, 1, 1])
    assert "at least one voxel" in str(check(plain, labels=())[0])


@pytest.mark.parametrize("kind", [".nii", ".nii.gz"])
def test_an_absurd_header_takes_no_memory(tmp_path: Path, kind: str) -> None:
    path = write_nifti(tmp_path / "scan.nii", scan(0))
    for dim, words in (
        ([3, 32767, 32767, 32767, 1, 1, 1, 1], "at most 1073741824 voxels"),
        ([3, 1000, 1000, 500, 1, 1, 1, 1], "truncated file"),
    ):
        patch_header(path, dim=dim)
        if kind == ".nii.gz":
            (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        tracemalloc.start()
        only(check_images({"ct": tmp_path / f"scan{kind}"}), words)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10_000_000


def test_colours_are_no_intensities(data: Manifest) -> None:
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    write_nifti(image_of(data), colours)
    only(check(data), "voxels of type", "one real number per voxel")


@pytest.mark.parametrize("size", [0.0, -2.0, float("nan")])
def test_zero_and_negative_spacing(plain: Manifest, size: float) -> None:
    patch_header(image_of(plain), pixdim=[1, 2, size, 3, 1, 1, 1, 1])
    only(check(plain), f"voxel size 2, {size:g}, 3 mm", "positive", "pixdim")


def sheared(angle: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[1, 2] = affine[2, 2] * np.tan(np.radians(angle))
    return affine


def test_a_sheared_affine(data: Manifest) -> None:
    write_nifti(image_of(data), scan(0), sheared(12))
    write_nifti(label_of(data), label(1, 4), sheared(12))
    problems = check(data)
    assert [p.file for p in problems] == ["images/train0_ct.nii.gz", "labels/train0_ct.nii.gz"]
    for problem in problems:
        assert "non-orthogonal affine, axes 12.00° off" in str(problem)
        assert "gantry tilt" in problem.fix


def test_rounded_cosines_pass(data: Manifest) -> None:
    turn = nib.eulerangles.euler2mat(0.4, -0.3, 0.9)
    affine = nib.affines.from_matvec(np.round(turn, 4) * [1.5, 1.5, 2.5], [-100.5, 20, 33])
    write_nifti(image_of(data), scan(0), affine)
    write_nifti(label_of(data), label(1, 4), affine)
    assert check(data) == []


@pytest.mark.parametrize(
    ("row", "words"), [([0, 0, 0, 0], "singular"), ([0, 0, np.nan, 0], "NaN or Inf in the affine")]
)
def test_an_affine_that_cannot_be_inverted(plain: Manifest, row: list[float], words: str) -> None:
    patch_header(image_of(plain), srow_z=row)
    only(check(plain, labels=()), words)


def test_image_and_label_of_different_shape(data: Manifest) -> None:
    write_nifti(label_of(data), label(1, 4, shape=(6, 5, 3)))
    only(check(data), "labels/train0_ct", "shape 6×5×3; expected 6×5×4", "order=0")


def test_image_and_label_apart(data: Manifest) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += [3, 0, 4]
    write_nifti(label_of(data), label(1, 4), moved)
    only(check(data), "corners up to 5 mm", "at most 0.2 mm", "fslcpgeom")


def test_a_label_that_is_turned_round_its_first_voxel(data: Manifest) -> None:
    write_nifti(label_of(data), label(1, 4), AFFINE @ np.diag([1, -1, 1, 1]))
    assert "fslcpgeom" not in only(check(data), "corners up to 8 mm", "another order").fix


@pytest.mark.parametrize("shift", [1e-10, 1e-4, 0.1])
def test_tiny_differences_of_the_affine_pass(data: Manifest, shift: float) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += shift
    write_nifti(label_of(data), label(1, 4), moved)
    assert check(data) == []


# Values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_in_an_image(data: Manifest, value: float) -> None:
    values = scan(0).astype(np.float32)
    values[1, 2, 3] = values[0, 0, 0] = value
    write_nifti(image_of(data), values)
    only(check(data), "2 of 120 voxels NaN or Inf")


def test_a_constant_image(data: Manifest) -> None:
    write_nifti(image_of(data), np.full(SHAPE, 40, np.int16))
    only(check(data), "constant image, every voxel 40")


def test_unknown_label_ids_with_their_numbers(data: Manifest) -> None:
    write_nifti(label_of(data), label(1, 4, 7, 7, 255))
    only(check(data), "label ids 7 (2 voxels), 255 (1 voxels)", "0 background, 1 liver, 4 spleen")


def test_many_unknown_ids_stay_one_short_line(data: Manifest) -> None:
    write_nifti(label_of(data), np.arange(120, dtype=np.int16).reshape(SHAPE) * 200)
    problem = only(check(data, splits=("train",)), "200 (1 voxels)", "and 111 more")
    assert len(str(problem)) < 500


def test_negative_and_huge_ids_are_unknown(data: Manifest) -> None:
    values = label(1, 4).astype(np.int32)
    values[5, 0, 0], values[5, 1, 0] = -2, 2_000_000_000
    write_nifti(label_of(data), values)
    only(check(data), "label ids -2 (1 voxels), 2000000000 (1 voxels)")


def test_the_ignore_id_is_known(data: Manifest) -> None:
    write_nifti(label_of(data), label(1, 4, 255))
    assert check(dataclasses.replace(data, ignore=255)) == []


def test_fractional_labels(data: Manifest) -> None:
    values = label(1, 4).astype(np.float32)
    values[3, 3, 3] = 2.25
    write_nifti(label_of(data), values)
    only(check(data), "1 voxels with fractional values such as 2.25", "nearest")


def test_nan_in_a_label(data: Manifest) -> None:
    values = label(1, 4).astype(np.float32)
    values[3, 3, 3] = np.nan
    write_nifti(label_of(data), values)
    only(check(data), "1 voxels NaN or Inf", "labels/")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.uint16, np.int8, ">i2"])
def test_whole_labels_of_any_type_pass(data: Manifest, dtype: type) -> None:
    write_nifti(label_of(data), label(1, 4).astype(dtype))
    assert check(data) == []


def test_a_scaled_label_counts_by_its_real_values(plain: Manifest) -> None:
    write_nifti(label_of(plain), label(10, 40))
    patch_header(label_of(plain), scl_slope=0.1, scl_inter=0)
    assert check(plain) == []
    patch_header(label_of(plain), scl_slope=0.25, scl_inter=0)
    assert "fractional values such as 2.5" in str(check(plain)[0])


def test_an_empty_label_is_a_warning(data: Manifest) -> None:
    write_nifti(label_of(data), label())
    only(check(data), "an empty label", "some liver or spleen", severity="warning")


def test_voxels_of_a_class_that_was_not_annotated(data: Manifest) -> None:
    partial = with_case(data, "train0", annotated=("spleen",))
    problems = check(partial)
    assert {(p.case, p.modality, p.severity) for p in problems} == {
        ("train0", "ct", "warning"),
        ("train0", "mr", "warning"),
    }
    assert "voxels of liver" in str(problems[0])


# Classes that no label shows


def without_spleen(manifest: Manifest, *uses: tuple[str, str]) -> None:
    for case, modality in uses:
        write_nifti(label_of(manifest, case, modality), label(1))


TRAIN = [("train0", "ct"), ("train0", "mr"), ("train1", "ct"), ("train1", "mr")]


def test_a_class_absent_from_all_train_labels(data: Manifest) -> None:
    without_spleen(data, *TRAIN)
    only(check(data), "dataset.json: found class spleen in none of the train labels")


def test_a_class_absent_from_the_labels_in_use(data: Manifest) -> None:
    without_spleen(data, ("train0", "ct"), ("train0", "mr"))
    assert check(data) == []
    only(check(data, labels={("train0", "ct"), ("train0", "mr"), ("val0", "ct")}), "class spleen")
    assert check(data, labels={("train0", "ct"), ("train1", "ct")}) == []


def test_a_class_absent_from_one_modality_is_a_warning(data: Manifest) -> None:
    without_spleen(data, ("train0", "mr"), ("train1", "mr"))
    only(check(data), "class spleen in none of the mr train labels", severity="warning")


def test_absence_is_not_told_where_it_cannot_be_known(data: Manifest) -> None:
    without_spleen(data, ("train0", "ct"), ("train0", "mr"), ("val0", "ct"))
    label_of(data, "train1").unlink()
    label_of(data, "train1", "mr").unlink()
    assert [p.found for p in check(data)] == ["no such file"] * 2
    assert check(data, splits=("val",)) == []
    assert check(data, labels=()) == []


# Repetition


def test_the_same_scan_in_two_splits(data: Manifest) -> None:
    shutil.copy(image_of(data, "train1"), image_of(data, "val0"))
    problem = only(check(data), "the same scan as train1 ct (train)", "no scan in two splits")
    assert (problem.case, problem.modality) == ("val0", "ct")


def test_the_same_scan_compressed_otherwise(data: Manifest) -> None:
    content = gzip.decompress(image_of(data, "train1").read_bytes())
    image_of(data, "val0").write_bytes(gzip.compress(content, 1, mtime=77))
    only(check(data), "the same scan as train1 ct (train)")


def test_the_same_scan_as_a_prepared_one(data: Manifest) -> None:
    shutil.copy(image_of(data, "train1"), image_of(data, "val0"))
    prepared = image_of(data, "train1")
    only(
        check(data, skip=lambda case, modality: case.images[modality] == prepared),
        "the same scan as train1",
    )
    only(check(data, skip=lambda case, modality: True), "the same scan as train1")


def test_the_same_scan_twice_in_a_split_is_a_warning(data: Manifest) -> None:
    shutil.copy(image_of(data, "train0"), image_of(data, "train1"))
    only(check(data), "the same scan as train0 ct", "counts twice", severity="warning")


def test_a_scan_in_three_places_is_compared_across_splits(data: Manifest) -> None:
    for case in ("train1", "val0"):
        shutil.copy(image_of(data, "train0"), image_of(data, case))
    assert [(p.case, p.severity) for p in check(data)] == [("train1", "warning"), ("val0", "error")]


def test_the_same_image_path_twice(data: Manifest) -> None:
    images = {"ct": image_of(data, "train0"), "mr": image_of(data, "val0", "mr")}
    only(check(with_case(data, "val0", images=images)), "the image file of train0 ct (train) again")


def test_the_same_label_path_in_two_cases(data: Manifest) -> None:
    labels = {"ct": label_of(data, "train0")}
    only(check(with_case(data, "val0", labels=labels)), "the label file of train0 ct (train) again")


def test_modalities_of_a_case_may_share_a_label(data: Manifest) -> None:
    labels = dict.fromkeys(("ct", "mr"), label_of(data, "train0"))
    assert check(with_case(data, "train0", labels=labels)) == []


def test_an_image_named_as_label(data: Manifest) -> None:
    labels = {"ct": image_of(data, "train0")}
    found = [p.found for p in check(with_case(data, "train0", labels=labels))]
    assert "the image file of train0 ct (train)" in found


# What is looked at


def test_only_the_labels_in_use_are_opened(data: Manifest) -> None:
    used = {("train1", "ct"), ("val0", "mr")}
    for case in data.cases:
        for modality, path in case.labels.items():
            if (case.id, modality) not in used:
                path.unlink()
    assert check(data, labels=used) == []
    assert len(check(data)) == 4


def test_only_the_splits_asked_for_are_opened(data: Manifest) -> None:
    image_of(data, "val0").unlink()
    assert check(data, splits=("train",)) == []
    only(check(data, splits=("val", "test")), "val0")


def test_skipped_images_are_not_read_but_compared_with_their_label(data: Manifest) -> None:
    write_nifti(image_of(data), np.full(SHAPE, 3, np.int16))
    write_nifti(label_of(data), label(1, 4, shape=(6, 5, 3)))
    prepared = image_of(data)

    def is_prepared(case, modality):
        return case.images[modality] == prepared

    only(check(data, skip=is_prepared), "shape 6×5×3; expected 6×5×4")
    assert check(data, labels=(), skip=is_prepared) == []


def test_each_file_is_opened_once(data: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = gzip.GzipFile.__init__

    def counting(self: gzip.GzipFile, *args: object, **kwargs: object) -> None:
        opened.append(str(getattr(kwargs.get("fileobj"), "name", "")))
        original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(gzip.GzipFile, "__init__", counting)
    check(data)
    assert len(opened) == len(set(opened)) == 12


def test_images_to_predict(data: Manifest, tmp_path: Path) -> None:
    images = {"ct": image_of(data), "mr": tmp_path / "none.nii.gz"}
    problem = only(check_images(images))
    assert str(problem).startswith(f"error    mr  {tmp_path / 'none.nii.gz'}: found no such file")
    assert check_images({"ct": image_of(data)}) == []


def test_one_image_given_for_two_modalities(data: Manifest) -> None:
    only(check_images(dict.fromkeys(("ct", "mr"), image_of(data))), "the image file of ct again")


@pytest.mark.skipif(not SHARED.exists(), reason="the real data sets are not here")
def test_the_real_heart_set_is_sound() -> None:
    assert check(load_manifest(SHARED / "heart" / "dataset.json")) == []


def test_ids_of_classes_left_out_count_as_background(data: Manifest) -> None:
    write_nifti(label_of(data), label(1, 4, 9))
    only(check(data), "label ids 9", "as background")
    assert check(dataclasses.replace(data, background=(9, 12))) == []


def test_class_names_that_may_tell_a_side_are_told_unless_the_manifest_decides(unpaired_files):
    short = dataclasses.replace(unpaired_files, labels={"lb": 3, "rb": 9})
    words = ("classes lb, rb, which may tell a side", '"mirror"')
    only(check(short, splits=()), *words, severity="warning")
    assert check(dataclasses.replace(short, mirror=True), splits=()) == []
    assert check(unpaired_files, splits=()) == []
