"""MS-CMRSeg: the sequences of a patient are one case."""

from __future__ import annotations

from pathlib import Path

from fixtures.files.convert import converted, mscmrseg


def test_mscmrseg_pairs_the_sequences_of_a_patient(tmp_path: Path) -> None:
    source = mscmrseg(tmp_path, patients=47, labelled=47, lge_labelled=12)
    data = converted("mscmrseg", source, tmp_path / "out")
    assert data.modalities == {"bssfp": "mr", "lge": "mr"} and not data.registered
    assert data.labels == {"myocardium": 200, "left ventricle": 500, "right ventricle": 600}
    assert (len(data.split("train")), len(data.split("val"))) == (40, 5)
    # Only patients 1 to 12 can be scored in both sequences.
    assert {int(c.id[-2:]) for c in data.split("val")} <= set(range(1, 13))
    assert data.case("patient01").images["lge"].name == "patient1_LGE.nii.gz"
    assert data.case("patient01").labels["bssfp"].name == "patient1_C0_manual.nii.gz"
    later = next(c for c in data.cases if int(c.id[-2:]) > 12)
    assert set(later.images) == {"bssfp", "lge"} and set(later.labels) == {"bssfp"}


def test_mscmrseg_takes_t2_when_asked(tmp_path: Path) -> None:
    source = mscmrseg(tmp_path, patients=5, labelled=5, lge_labelled=5)
    data = converted("mscmrseg", source, tmp_path / "out", "--modalities", "t2,lge",
                     "--sizes", "all", "--val", "2")  # fmt: skip
    assert list(data.modalities) == ["lge", "t2"]
    assert (len(data.split("train")), len(data.split("val"))) == (3, 2)
