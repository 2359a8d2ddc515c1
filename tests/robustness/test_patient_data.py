"""Attributes that name a patient in a DICOM series reach no output, no log and no error message."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from crossvox.cli.main import main
from crossvox.data.formats.nifti import read_image
from crossvox.data.manifest import Manifest
from fixtures.broken.folders import DICOM
from fixtures.files.chaos import chaos
from fixtures.files.dicom import MARKED, change, in_order, write_series
from fixtures.run import trained

VALUES = [*MARKED.values(), "marked private value", "Doe", "Jane", "1.2.826.0.1.77431"]


@pytest.fixture(scope="module")
def run(unpaired_files: Manifest, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "r", "--method", "sup")


@pytest.fixture
def series(unpaired_files: Manifest, tmp_path: Path) -> Path:
    """A CT as a series, every file of which names the patient in every way."""
    scan = read_image(unpaired_files.case("ct6").images["ct"])
    write_series(tmp_path / "in" / "series", np.rint(scan.data), scan.grid.affine)
    return tmp_path / "in" / "series"


def uids(series: Path) -> list[str]:
    """Attributes of the series and of each slice."""
    headers = [pydicom.dcmread(file) for file in in_order(series)]
    return [headers[0].SeriesInstanceUID, *(header.SOPInstanceUID for header in headers)]


def betrayed(folder: Path, values: list[str]) -> list[tuple[Path, str]]:
    """Every file below a folder with one of the values in its bytes, unzipped, or in its name."""
    found = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        found += [
            (file, value)
            for value in values
            if value in file.name
            or any(value.encode(code) in content for code in ("utf-8", "utf-16-le"))
        ]
    return found


def test_the_search_finds_what_is_there(series: Path, tmp_path: Path) -> None:
    every = {value for _, value in betrayed(series, VALUES + uids(series))}
    assert every == {*VALUES, *uids(series)}
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"..Doe^Jane.."))
    assert (tmp_path / "a.gz", "Doe^Jane") in betrayed(tmp_path, VALUES)


def test_no_output_names_the_patient(run, series, tmp_path, capfd, caplog, record_property) -> None:
    values = VALUES + uids(series)
    out = tmp_path / "out"
    words = ["predict", str(run), "--image", f"ct={series}", "--out", str(out)]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert main([*words, "--save-probabilities", "--save-uncertainty", "--tta"]) == 0
        assert main(["profile", "predict", str(run), "--image", f"ct={series}"]) in (0, 1)
    said = capfd.readouterr()
    text = said.out + said.err + caplog.text + "".join(str(w.message) for w in warned)
    assert not [value for value in values if value in text]
    assert len(list(out.iterdir())) >= 4 and betrayed(out, values) == []
    assert betrayed(run, values) == []
    record_property("identifying DICOM values searched for in all outputs", len(values))


@pytest.mark.parametrize("kind", [kind for kind in DICOM if kind != "two series"])
def test_no_error_message_does(run, series, tmp_path, capfd, kind) -> None:
    values = VALUES + uids(series)
    DICOM[kind](series)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        words = ["predict", str(run), "--image", f"ct={series}", "--out", str(tmp_path / "out")]
        assert main(words) in (1, 2)
    said = capfd.readouterr()
    text = said.out + said.err + "".join(str(w.message) for w in warned)
    assert not [value for value in values if value in text]


def test_values_of_a_wrong_form_are_not_quoted(run, series, tmp_path, capfd) -> None:
    """As scanners write them, and as pydicom warns of, value and all."""
    for file in in_order(series):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(file, PatientBirthDate="Marked 1937", StudyInstanceUID="Marked UID",
                   PatientAge="Marked", ReferencedSOPInstanceUID="Marked.x")  # fmt: skip
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        words = ["predict", str(run), "--image", f"ct={series}", "--out", str(tmp_path / "out")]
        assert main(words) == 0
    said = capfd.readouterr()
    assert "arked" not in said.out + said.err + "".join(str(w.message) for w in warned)
    assert betrayed(tmp_path / "out", ["arked"]) == []


def test_a_list_of_several_series_shows_what_tells_them_apart_and_no_more(
    run, series, tmp_path, capfd
) -> None:
    DICOM["two series"](series)
    out = str(tmp_path / "out")
    assert main(["predict", str(run), "--image", f"ct={series}", "--out", out]) == 2
    said = capfd.readouterr().err
    assert not [value for value in VALUES if value in said]
    assert said.count("slices") == 2


def test_a_converted_data_set_does_not_name_them(tmp_path, capfd) -> None:
    out = tmp_path / "out"
    source = chaos(tmp_path / "in")
    assert betrayed(source, VALUES) != []
    assert main(["convert", "chaos", str(source), "--out", str(out)]) == 0
    said = capfd.readouterr()
    assert not [value for value in VALUES if value in said.out + said.err]
    assert betrayed(out, VALUES) == []


def test_dicom_seg_is_the_way_to_ask_for_it(run, series, tmp_path, capfd) -> None:
    out = tmp_path / "out"
    words = ["predict", str(run), "--image", f"ct={series}", "--out", str(out), "--dicom-seg"]
    assert main(words) == 0
    seg = pydicom.dcmread(out / "series_ct.seg.dcm")
    assert seg.PatientID == MARKED["PatientID"] and seg.PatientName == MARKED["PatientName"]
    assert seg.StudyInstanceUID == MARKED["StudyInstanceUID"]
    assert {file.name for file, _ in betrayed(out, VALUES)} == {"series_ct.seg.dcm"}
    said = capfd.readouterr()
    assert not [value for value in VALUES if value in said.out + said.err]
