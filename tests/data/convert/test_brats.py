"""BraTS: both eras of file names, but one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.files.convert import converted, image, mask
from fixtures.run import refused


@pytest.mark.parametrize(
    ("names", "case", "enhancing"),
    [
        (("_t1", "_t1ce", "_t2", "_flair", "_seg"), "BraTS2021_{:05d}", 4),
        (("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), "BraTS-GLI-{:05d}-000", 3),
    ],
)
def test_brats_of_both_eras(tmp_path: Path, names, case, enhancing) -> None:
    for number in range(5):
        folder = case.format(number)
        for name in names[:4]:
            image(tmp_path / "Training" / folder / f"{folder}{name}.nii.gz")
        mask(tmp_path / "Training" / folder / f"{folder}{names[4]}.nii.gz", 1, 2, enhancing)
    folder = case.format(9)
    for name in names[:4]:
        image(tmp_path / "Validation" / folder / f"{folder}{name}.nii.gz")
    data = converted("brats", tmp_path, tmp_path / "out")
    assert list(data.modalities) == ["t1", "t1c", "t2", "flair"] and data.registered
    assert data.labels["enhancing tumor"] == enhancing
    assert (len(data.split("train")), len(data.split("val"))) == (5, 1)
    labelled = data.case(case.format(0))
    assert list(labelled.images) == list(data.modalities)
    assert len(set(labelled.labels.values())) == 1
    unlabelled = data.case(case.format(9))
    assert unlabelled.split == "train" and not unlabelled.labels


def test_brats_of_two_eras_at_once_is_refused(tmp_path: Path, capsys) -> None:
    image(tmp_path / "BraTS2021_00000_t1.nii.gz")
    image(tmp_path / "BraTS-GLI-00000-000-t1n.nii.gz")
    assert "one release at a time" in refused(
        capsys, "convert", "brats", tmp_path, "--out", tmp_path
    )
