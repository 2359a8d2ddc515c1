"""Label ids carry their names and colours to the viewers; every form is parsed back."""

from __future__ import annotations

import shlex
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.formats.label_tables import (
    ITKSNAP_TABLE,
    SLICER_TABLE,
    label_extension,
    write_label_tables,
)
from crossvox.data.formats.nifti import write_label
from crossvox.figures import overlays
from crossvox.utils.palette import COLOURS, class_colour, class_rgb

IDS = {"left kidney": 13, 'Leber <groß> & "rund"': 2, "spleen": 500}


def test_the_header_of_a_label_map_names_and_colours_its_ids(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    indices = np.random.default_rng(0).integers(0, 4, (3, 4, 5))
    write_label(tmp_path / "map.nii.gz", indices, IDS, tmp_path / "scan.nii.gz")
    image = nib.load(tmp_path / "map.nii.gz")
    (extension,) = image.header.extensions
    root = ElementTree.fromstring(extension.get_content().rstrip(b"\0"))
    labels = root.findall("VolumeInformation/LabelTable/Label")
    assert {label.text: int(label.get("Key")) for label in labels} == IDS
    for index, label in enumerate(labels, start=1):
        found = [round(255 * float(label.get(k))) for k in ("Red", "Green", "Blue")]
        assert tuple(found) == class_rgb(index)
    assert np.array_equal(np.asanyarray(image.dataobj), np.array([0, 13, 2, 500])[indices])


def test_slicers_table_has_a_row_per_id_without_spaces_in_names(tmp_path):
    write_label_tables(tmp_path, IDS)
    lines = (tmp_path / SLICER_TABLE).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Color table file")
    rows = [line.split(" ") for line in lines if not line.startswith("#")]
    assert [int(row[0]) for row in rows] == [0, 2, 13, 500]
    assert all(len(row) == 6 for row in rows) and rows[0][2:] == ["0"] * 4
    assert rows[2][1] == "left_kidney"
    assert tuple(int(v) for v in rows[2][2:]) == (*class_rgb(1), 255)


def test_itksnaps_table_quotes_the_names(tmp_path):
    write_label_tables(tmp_path, IDS)
    lines = (tmp_path / ITKSNAP_TABLE).read_text(encoding="utf-8").splitlines()
    assert "ITK-SnAP Label Description File" in lines[0]
    rows = {int(row[0]): row[1:] for row in map(shlex.split, lines[1:])}
    assert rows.keys() == {0, 2, 13, 500} and rows[0] == ["0"] * 6 + ["Clear Label"]
    assert rows[13] == [*map(str, class_rgb(1)), "1", "1", "1", "left kidney"]
    assert rows[2][-1] == "Leber <groß> & 'rund'"


def test_many_classes_have_colours_of_their_own_which_figures_share():
    assert [class_colour(k) for k in range(1, 8)] == list(COLOURS)
    assert len({class_colour(k) for k in range(1, 22)}) == 21
    assert class_colour(22) == class_colour(1)
    assert overlays.class_colour is class_colour


@pytest.mark.parametrize("ids", [{}, {"a": 1}])
def test_an_extension_is_whole_xml_whatever_the_number_of_classes(ids):
    root = ElementTree.fromstring(label_extension(ids).get_content())
    assert len(root.findall(".//Label")) == len(ids)
