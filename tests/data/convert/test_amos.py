"""AMOS: modality, organs and parts are those of the data set."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.main import main
from crossvox.data.convert.amos import LABELS
from crossvox.data.manifest import load_manifest
from fixtures.files.convert import amos, converted, ids, image, tiny


def test_amos_knows_modality_organs_and_parts(tmp_path: Path) -> None:
    source = amos(tmp_path / "amos 22 ü", {"ct": 3, "mr": 2}, {"ct": 1, "mr": 1}, test=1)
    image(source / "imagesTr" / "._amos_0001.nii.gz")  # left by a Mac
    data = converted("amos", source, tmp_path / "out", "--sizes", "all")
    assert data.modalities == {"ct": "ct", "mr": "mr"} and data.labels == LABELS
    assert ids(data, "train", "ct") == {"amos_0001", "amos_0002", "amos_0003"}
    assert ids(data, "train", "mr") == {"amos_0501", "amos_0502"}
    assert ids(data, "val") == {"amos_0004", "amos_0503"}
    assert ids(data, "test") == {"amos_0005"} and not data.case("amos_0005").labels
    assert data.case("amos_0501").labels["mr"].resolve() == source / "labelsTr" / "amos_0501.nii.gz"


def test_the_papers_split_of_amos_is_drawn_by_seed(tmp_path: Path) -> None:
    source = tmp_path / "amos"
    for part, ct, mr in (
        ("Tr", range(1, 61), range(501, 546)),
        ("Va", range(61, 86), range(546, 570)),
    ):
        for number in [*ct, *mr]:
            tiny(source / f"images{part}" / f"amos_{number:04d}.nii.gz")
            tiny(source / f"labels{part}" / f"amos_{number:04d}.nii.gz")

    def drawn(seed: int) -> list[tuple[str, str]]:
        out = tmp_path / f"{seed}"
        assert main(["convert", "amos", str(source), "--out", str(out), "--seed", str(seed),
                     "--overwrite"]) == 0  # fmt: skip
        cases = load_manifest(out / "dataset.json", tmp_path).cases
        sizes = {(s, m): sum(c.split == s and m in c.images for c in cases)
                 for s in ("train", "val", "test") for m in ("ct", "mr")}  # fmt: skip
        assert sizes == {("train", "ct"): 40, ("train", "mr"): 40, ("val", "ct"): 20,
                         ("val", "mr"): 20, ("test", "ct"): 0, ("test", "mr"): 0}  # fmt: skip
        parts = {"train": "imagesTr", "val": "imagesVa"}
        assert all(p.parent.name == parts[c.split] for c in cases for p in c.images.values())
        return [(case.id, case.split) for case in cases]

    first = drawn(1)
    assert drawn(1) == first
    assert set(drawn(2)) != set(first)
    assert "seed 1" in load_manifest(tmp_path / "1" / "dataset.json", tmp_path).source
