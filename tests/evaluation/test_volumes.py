from __future__ import annotations

import numpy as np
import pytest

from crossvox.errors import DataError
from crossvox.evaluation.volumes import append_volumes, measure_volumes, read_volumes

LABELS = np.array([0, 1, 1, 3, 3, 3]).reshape(1, 2, 3)


def rows(name: str, affine=None):
    affine = np.diag([2.0, -2.0, 5.0, 1.0]) if affine is None else affine
    return measure_volumes(
        LABELS, affine, ("a", "b", "c"), file=name, case="p", modality="ct", scan="s"
    )


def test_volumes_are_in_millilitres_and_list_what_was_not_found():
    found = {row["class"]: (row["voxels"], float(row["mL"])) for row in rows("x")}
    assert found == {"a": (2, 0.04), "b": (0, 0.0), "c": (3, 0.06)}


def test_the_volume_of_a_sheared_voxel_is_the_determinant():
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[0, 2] = 3.0  # a tilted gantry: longer edges, the same volume
    assert float(rows("x", affine)[0]["mL"]) == pytest.approx(0.04)


def test_a_table_grows_and_replaces_the_rows_of_a_file_that_is_written_again(tmp_path):
    table = tmp_path / "volumes.csv"
    append_volumes(table, rows("x"))
    append_volumes(table, rows("ü,y"))
    append_volumes(table, rows("x", np.diag([1.0, 1.0, 1.0, 1.0])))
    found = read_volumes(table)
    assert [row["file"] for row in found] == ["ü,y"] * 3 + ["x"] * 3
    assert [row["mL"] for row in found[3:]] == ["0.002", "0.000", "0.003"]


def test_another_table_of_that_name_is_left_alone(tmp_path):
    table = tmp_path / "volumes.csv"
    table.write_text("patient,litres\n1,2\n")
    with pytest.raises(DataError, match="not a table of volumes"):
        append_volumes(table, rows("x"))
    assert table.read_text() == "patient,litres\n1,2\n"
