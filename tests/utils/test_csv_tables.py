"""Tables on disk."""

import pytest

from crossvox.errors import DataError
from crossvox.utils.csv_tables import csv_text, read_own_table

COLUMNS = ("case", "dice")


def test_missing_values_are_empty_cells():
    text = csv_text(COLUMNS, ("a", 0.5), ("b", None), ("c", float("nan")), ("d", 0))
    assert text == "case,dice\na,0.5\nb,\nc,\nd,0\n"


def test_a_table_returns_as_it_was_written(tmp_path):
    odd = 'a, "b"\nc'
    (tmp_path / "t.csv").write_text(csv_text(COLUMNS, (odd, 0.25)), newline="", encoding="utf-8")
    found = read_own_table(tmp_path / "t.csv", COLUMNS, "scores")
    assert found == [{"case": odd, "dice": "0.25"}]


def test_no_table_has_no_rows(tmp_path):
    assert read_own_table(tmp_path / "none.csv", COLUMNS, "scores") == []


@pytest.mark.parametrize("head", ["", "case", "dice,case", "case,dice,assd"])
def test_another_table_is_refused(tmp_path, head):
    (tmp_path / "t.csv").write_text(f"{head}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.csv: not a table of scores; move it away"):
        read_own_table(tmp_path / "t.csv", COLUMNS, "scores")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(DataError, match=r"t\.csv: not a readable table of scores"):
        read_own_table(tmp_path / "t.csv", COLUMNS, "scores")
