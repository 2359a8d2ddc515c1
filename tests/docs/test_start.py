"""The first day of docs/tutorials/start.md, as it stands there but for the size of the training."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np

from crossvox.cli.main import main
from fixtures.docs import ROOT, blocks, command_lines
from fixtures.run import SMALL

PAGE = ROOT / "docs" / "tutorials" / "start.md"


def test_the_first_day_from_bare_folders_to_a_report(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile(block.text, str(PAGE), "exec"), {})
            continue
        for words in command_lines(block.text):
            assert main([*words, *(SMALL if words[0] == "train" else ())]) == 0, words
            done.append(words[0])
    assert done == ["convert", "check", "split", "train", "predict", "predict", "evaluate",
                    "report", "rank-cases"]  # fmt: skip

    scan = nib.load("study/scans/ct/images/ct003.nii.gz")
    label = nib.load("single/ct003_ct.nii.gz")
    assert np.array_equal(label.affine, scan.affine) and label.shape == scan.shape
    assert set(np.unique(np.asarray(label.dataobj))) <= {0, 1, 2, 3, 6}
    assert len(list((tmp_path / "study" / "pictures").glob("*.png"))) == 24
    assert len(list((tmp_path / "segmented").glob("*_uncertainty.nii.gz"))) == 4
    assert 'class="scan-data"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    with open("next.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 14  # 2 × 9 train scans, 2 × 2 of them labelled
