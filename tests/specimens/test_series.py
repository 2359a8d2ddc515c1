"""DICOM series that are not whole, not one, or not to be read by slope and intercept alone."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from crossvox.cli.main import main
from crossvox.data.formats.dicom.series import choose_series, read_series
from crossvox.data.formats.nifti import read_image
from crossvox.errors import DataError
from crossvox.workflows.prediction.scans import InputScan
from fixtures.files.dicom import change, in_order, plain, write_series
from fixtures.run import trained

pytestmark = pytest.mark.specimen("series")

AFFINE = np.diag([-0.8, -0.7, 2.5, 1.0])
AIR = -1000


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(AIR, 1500, (9, 7, 6)).astype(np.int16)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A series, its files in the order of the slices."""
    write_series(tmp_path / "in", values(), AFFINE)
    return in_order(tmp_path / "in")


def read(folder: Path) -> np.ndarray:
    return read_series(choose_series(folder)).data


def reason(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("slices", [[5], [4, 5], [0], [2]])
@pytest.mark.parametrize("left", [0, 100, 140, 600])
def test_files_that_are_empty_or_cut_are_counted(files, slices, left) -> None:
    for k in slices:
        files[k].write_bytes(files[k].read_bytes()[:left])
    text = reason(files[0].parent)
    assert f"{len(slices)} of 6 files are " in text and files[slices[0]].name in text


def test_a_damaged_file_is_known_by_its_ending(files) -> None:
    (files[0].parent / "last one.dcm").write_bytes(b"")
    assert "1 of 7 files are empty (last one.dcm)" in reason(files[0].parent)


def test_pixels_that_are_cut_are_refused(files) -> None:
    files[5].write_bytes(files[5].read_bytes()[:-50])
    assert f"{files[5].name}: pixels unreadable" in reason(files[0].parent)


def test_files_without_preamble_are_read(files) -> None:
    for file in files[3:]:
        file.write_bytes(file.read_bytes()[132:])
    assert np.array_equal(read(files[0].parent), values())


def test_files_without_preamble_and_syntax_are_read(files) -> None:
    for file in files:
        dataset = pydicom.dcmread(file)
        bare = Dataset()
        bare.update({element.tag: element for element in dataset if not element.tag.is_private})
        bare.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    assert np.array_equal(read(files[0].parent), values())


def stored(file: Path, numbers: np.ndarray, signed: bool = False, **attributes: object) -> None:
    """Give one file other stored values, (columns, rows)."""
    change(file, PixelData=np.ascontiguousarray(numbers.T).tobytes(),
           PixelRepresentation=int(signed), **attributes)  # fmt: skip


def test_a_modality_lut_gives_the_values(files) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [2600, 0, 16], "HU"
    table.add_new((0x0028, 0x3006), "OW", (np.arange(2600) - 1024).astype(np.int16).tobytes())
    for k, file in enumerate(files):
        numbers = (values()[:, :, k] + 1024).astype(np.uint16)
        stored(file, numbers, RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[table])
    assert np.array_equal(read(files[0].parent), values())


def test_a_modality_lut_that_cannot_be_used_is_refused(files) -> None:
    change(files[2], ModalityLUTSequence=[Dataset()])
    assert "Modality LUT cannot be used" in reason(files[0].parent)


@pytest.mark.parametrize(
    ("padding", "limit", "signed", "written"),
    [
        (63_536, None, False, 63_536),
        (63_000, 65_535, False, 64_100),
        (65_535, 63_000, False, 63_000),
        (63_536, None, True, -2000),
        (-2000, -1500, True, -1700),
        (0, None, False, 0),
    ],
)
def test_padding_is_as_low_as_anything(files, padding, limit, signed, written) -> None:
    outside = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, n) for n in (9, 7)], indexing="ij")) > 1.1
    offset = 0 if signed else -1024
    lowest = min(int(values()[~outside, k].min()) for k in range(6))
    for k, file in enumerate(files):
        numbers = (values()[:, :, k] - offset).astype(np.int16 if signed else np.uint16)
        numbers[outside] = written
        stored(file, numbers, signed, RescaleIntercept=offset)
        dataset = pydicom.dcmread(file)
        kind = "SS" if padding < 0 else "US"
        dataset.add_new((0x0028, 0x0120), kind, padding)
        if limit is not None:
            dataset.add_new((0x0028, 0x0121), kind, limit)
        dataset.save_as(file)
    found = read(files[0].parent)
    assert np.array_equal(found[~outside], values()[~outside]) and (found[outside] == lowest).all()


@pytest.mark.parametrize("tag", ["RescaleSlope", "RescaleIntercept"])
def test_one_number_is_expected_where_one_is_used(files, tag) -> None:
    own = pydicom.dcmread(files[1])[tag].value
    change(files[1], **{tag: [own, own]})
    assert np.array_equal(read(files[0].parent), values())
    change(files[1], **{tag: [1, 2]})
    assert f"{files[1].name}: its {tag} is not one finite number" in reason(files[0].parent)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("taken", [["RescaleSlope", "RescaleIntercept"], ["RescaleIntercept"]])
def test_slices_that_lack_the_rescaling_of_others_are_refused(files, modality, taken) -> None:
    for file in files:
        change(file, Modality=modality)
    change(files[3], **dict.fromkeys(taken))
    text = reason(files[0].parent)
    assert "1 of 6 slices have no RescaleIntercept" in text and files[3].name in text
    assert "others have -1024" in text


def test_slices_without_rescaling_are_read_if_others_need_none(files) -> None:
    for k, file in enumerate(files):
        stored(file, values()[:, :, k], signed=True, RescaleIntercept=0)
    change(files[2], RescaleSlope=None, RescaleIntercept=None)
    assert np.array_equal(read(files[0].parent), values())


def test_slopes_of_a_ct_that_differ_are_refused_and_those_of_others_used(files) -> None:
    for file in files[1:3]:
        change(file, RescaleSlope=10)
    text = reason(files[0].parent)
    assert "2 of 6 slices of a CT have RescaleSlope 10" in text and files[1].name in text
    for file in files:
        change(file, Modality="PT", RescaleIntercept=0)
    found = read(files[0].parent)
    assert np.array_equal(found[:, :, 1], 10.0 * (values()[:, :, 1] + 1024))
    assert np.array_equal(found[:, :, 0], values()[:, :, 0] + 1024)


def test_intercepts_of_a_ct_that_differ_are_told(files) -> None:
    change(files[3], RescaleIntercept=0)
    (note,) = InputScan.from_path(files[0].parent).notes
    assert "RescaleIntercept -1024, 0" in note


@pytest.mark.parametrize("tag", ["SpacingBetweenSlices", "SliceThickness"])
def test_every_second_slice_is_missed(files, tag) -> None:
    for file in files:
        change(file, SliceThickness=None)
        change(file, **{tag: 2.5})
    assert InputScan.from_path(files[0].parent).notes == ()
    for file in files[1::2]:
        file.unlink()
    numbers, step = InputScan.from_path(files[0].parent).notes
    assert "runs from 1 to 5 in 3 slices, so 2 between them are not there" in numbers
    assert f"slices lie 5 mm apart, but {tag} is 2.5 mm" in step


def test_first_slices_are_missed_by_their_numbers(files) -> None:
    for file in files[:2]:
        file.unlink()
    (note,) = InputScan.from_path(files[0].parent).notes
    assert "InstanceNumber runs from 3 to 6 in 4 slices, so 2 before them are not there" in note


def test_a_gap_in_the_numbers_is_told_and_a_zero_is_none(files) -> None:
    for k, file in enumerate(files):
        change(file, InstanceNumber=k)
    assert InputScan.from_path(files[0].parent).notes == ()
    change(files[5], InstanceNumber=9)
    (note,) = InputScan.from_path(files[0].parent).notes
    assert "from 0 to 9 in 6 slices, so 4 between them are not there" in note


def test_slices_that_hold_nothing_are_told(files) -> None:
    for file in files[4:]:
        stored(file, np.zeros((9, 7), np.int16), signed=True)
    (note,) = InputScan.from_path(files[0].parent).notes
    assert "2 of 6 slices hold one value only" in note and files[5].name in note


def scramble(files: list[Path], ending: str = "") -> list[Path]:
    """Name files as hashes, as some archives do."""
    names = ("a9f3c", "be", "c0ffee", "d1f", "e77a0b", "f00d1")
    return [
        file.rename(file.with_name(name + ending)) for file, name in zip(files, names, strict=True)
    ]


@pytest.mark.parametrize(("content", "why"), [(b"", "empty"), (bytes(900), "filled with zeros")])
def test_files_of_any_name_that_hold_nothing_are_damaged(files, content, why) -> None:
    files = scramble(files)
    for file in files[4:]:
        file.write_bytes(content)
    text = reason(files[0].parent)
    assert f"2 of 6 files are {why}" in text and "e77a0b" in text


def test_packed_files_are_told(files) -> None:
    files = scramble(files, ".dcm")
    for file in files[4:]:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert "2 of 6 files are packed and must be unpacked first" in reason(files[0].parent)
    for file in files[:4]:
        file.unlink()
    assert "no DICOM image in it; 2 packed and must be unpacked" in reason(files[0].parent)


def test_series_of_one_slice_are_told_to_be_one_stack(files) -> None:
    for file in files:
        change(file, SeriesInstanceUID=generate_uid())
    assert "6 series of one slice each, which form one stack" in reason(files[0].parent)


@pytest.mark.parametrize(
    ("tag", "first", "second"),
    [
        ("AcquisitionNumber", 1, 2),
        ("TemporalPositionIdentifier", 1, 2),
        ("EchoTime", 2.3, 4.6),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]),
    ],
)
def test_volumes_in_one_series_are_told_apart(tmp_path, tag, first, second) -> None:
    folder, uid = tmp_path / "in", generate_uid()
    for number, value in enumerate((first, second)):
        write_series(folder / str(number), values(number), AFFINE, uid=uid)
        for file in in_order(folder / str(number)):
            change(file, **{tag: value})
    text = reason(folder)
    shown = ["/".join(v) if isinstance(v, list) else str(v) for v in (first, second)]
    assert f"they differ in {tag} {shown[0]} (6 slices), {shown[1]} (6 slices)" in text
    assert f"{folder}#{tag}={shown[0]}" in text
    for number, value in enumerate(shown):
        for way in (f"{folder}#{tag}={value}", f"{folder}#{uid}#{tag}={value}"):
            assert np.array_equal(InputScan.from_path(Path(way)).image.data, values(number))


def test_a_localizer_in_the_series_can_be_left_out(files, tmp_path) -> None:
    uid = pydicom.dcmread(files[0]).SeriesInstanceUID
    turned = np.eye(4)
    turned[:3, :3] = np.eye(3)[[1, 2, 0]]
    write_series(tmp_path / "in" / "extra", values(1)[:, :, :1], turned, uid=uid)
    for file in files:
        change(file, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    change(
        next((tmp_path / "in" / "extra").iterdir()), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    text = reason(tmp_path / "in")
    assert "different orientations" in text and "ORIGINAL/PRIMARY/LOCALIZER (1 slice)" in text
    way = Path(f"{tmp_path / 'in'}#ImageType=ORIGINAL/PRIMARY/AXIAL")
    assert np.array_equal(InputScan.from_path(way).image.data, values())


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "EchoTime"])
def test_volumes_whose_slices_take_turns_are_told_of(files, tag) -> None:
    for k, file in enumerate(files):
        change(file, **{tag: 1 + k // 3})
    assert InputScan.from_path(files[0].parent).notes == ()  # one after the other
    for k, file in enumerate(files):
        change(file, **{tag: 1 + k % 2})
    (note,) = InputScan.from_path(files[0].parent).notes
    assert f"slices of {tag} " in note and "(3 slices) take turns" in note


def test_slices_that_a_series_says_it_has_are_missed(files) -> None:
    for file in files:
        change(file, ImagesInAcquisition=6)
    assert InputScan.from_path(files[0].parent).notes == ()
    files[5].unlink()
    (note,) = InputScan.from_path(files[0].parent).notes
    assert "ImagesInAcquisition is 6, but there are 5 slices" in note


def test_what_is_not_used_is_listed(files) -> None:
    folder = files[0].parent
    assert InputScan.from_path(folder).notes == ()
    plain("SR", "1.9").save_as(folder / "report.dcm", enforce_file_format=True)
    for number in range(4):
        (folder / f"note{'s' * number}.txt").write_text("hello")
    (note,) = InputScan.from_path(folder).notes
    assert f"{folder}: 6 slices; not used: " in note
    assert "1 DICOM of the kind SR (report.dcm)" in note
    assert "4 no DICOM (note.txt, notes.txt, notess.txt and 1 more)" in note


def test_links_to_folders_are_followed(files, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "series").symlink_to(files[0].parent)
    (files[0].parent / "round").symlink_to(tmp_path / "out")
    assert np.array_equal(read(tmp_path / "out"), values())


@pytest.fixture(scope="module")
def run(unpaired_files, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "r", "--method", "sup")


@pytest.fixture
def scan(unpaired_files, tmp_path) -> Path:
    volume = read_image(unpaired_files.case("ct6").images["ct"])
    write_series(tmp_path / "scan", np.rint(volume.data), volume.grid.affine)
    return tmp_path / "scan"


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_what_no_dicom_seg_can_refer_to_is_told_before_the_work(
    run, scan, tmp_path, capsys, tag
) -> None:
    for file in scan.iterdir():
        change(file, **{tag: generate_uid()})
    words = ["predict", str(run), "--image", f"ct={scan}", "--out", str(tmp_path / "out")]
    assert main([*words, "--dicom-seg"]) == 1
    line = capsys.readouterr().err
    assert (
        line.count("\n") == 1 and f"have another {tag}" in line and "leave --dicom-seg out" in line
    )
    assert not (tmp_path / "out").exists()
    assert main(words) == 0


def test_a_dicom_seg_that_fails_late_costs_nothing_else(
    run, scan, tmp_path, monkeypatch, capsys
) -> None:
    def fail(*_):
        raise DataError("no DICOM SEG")

    monkeypatch.setattr("crossvox.workflows.prediction.outputs.write_dicom_seg", fail)
    words = ["predict", str(run), "--image", f"ct={scan}", "--out", str(tmp_path / "out")]
    assert main([*words, "--dicom-seg", "--save-uncertainty"]) == 1
    assert capsys.readouterr().err == "crossvox: error: no DICOM SEG\n"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "scan_ct.nii.gz", "scan_ct_uncertainty.nii.gz", "volumes.csv", "labels.ctbl",
        "labels.itksnap.txt",
    }  # fmt: skip


def smooth(phase: float = 0) -> np.ndarray:
    x, y, z = np.indices((24, 20, 14))
    values = 400 + 200 * np.sin(x / 4 + phase) * np.cos(y / 3 + z / 4)
    return (values + np.random.default_rng(0).normal(0, 30, x.shape)).astype(np.int16)


@pytest.mark.parametrize("difference", ["brighter", "another phase", "enhanced part"])
def test_two_volumes_that_take_turns_without_a_tag_are_told(tmp_path, difference) -> None:
    turns = smooth()
    second = {"brighter": smooth() + 60, "another phase": smooth(1)}.get(difference, smooth())
    if difference == "enhanced part":
        second[6:12, 6:12] += 150
    turns[:, :, ::2] = second[:, :, ::2]
    write_series(tmp_path / "in", turns, AFFINE)
    scan = InputScan.from_path(tmp_path / "in")
    assert any("every second slice differs" in note for note in scan.notes)


@pytest.mark.parametrize("kind", ["smooth", "noise", "slices of other brightness"])
def test_one_volume_is_not_said_to_take_turns(tmp_path, kind) -> None:
    random = np.random.default_rng(1)
    series = {"smooth": smooth(), "noise": random.integers(0, 900, (24, 20, 14))}.get(kind)
    if series is None:
        series = smooth() + random.integers(-60, 60, 14)
    write_series(tmp_path / "in", series.astype(np.int16), AFFINE)
    assert InputScan.from_path(tmp_path / "in").notes == ()


def test_two_phases_at_the_same_places_are_refused(tmp_path) -> None:
    write_series(tmp_path / "in", smooth(), AFFINE)
    write_series(tmp_path / "more", smooth(1), AFFINE)
    for file in (tmp_path / "more").iterdir():
        file.rename(tmp_path / "in" / f"second {file.name}")
    uid = generate_uid()
    for file in (tmp_path / "in").iterdir():
        change(file, SeriesInstanceUID=uid)
    assert "slices lie where another one does" in reason(tmp_path / "in")
