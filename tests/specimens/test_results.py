"""Results carry the names that the user gave, and never take the place of other results."""

from __future__ import annotations

import gzip
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.formats.nifti import read_image
from crossvox.evaluation.volumes import append_volumes, read_volumes
from crossvox.figures.style import stack_pictures
from fixtures.files.dicom import write_series
from fixtures.run import refused, trained

pytestmark = pytest.mark.specimen("results")

PATIENT = "Mustermann_Erika"


@pytest.fixture(scope="module")
def run(unpaired_files, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "r", "--method", "sup")


@pytest.fixture
def scans(unpaired_files, tmp_path) -> list[Path]:
    """Two patients' scans of one file name."""
    files = []
    for number in (5, 6):
        file = tmp_path / f"p{number}" / "ct.nii.gz"
        file.parent.mkdir()
        shutil.copy(unpaired_files.case(f"ct{number}").images["ct"], file)
        files.append(file)
    return files


def predict(run: Path, image: object, out: Path, *more: str) -> int:
    return main(["predict", str(run), "--image", f"ct={image}", "--out", str(out), *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def series(folder: Path, unpaired_files, number: int = 6) -> Path:
    scan = read_image(unpaired_files.case(f"ct{number}").images["ct"])
    write_series(folder, np.rint(scan.data), scan.grid.affine)
    return folder


@pytest.mark.parametrize("given", ["case01", "case01/", "case01/.", "."])
def test_a_link_to_a_patient_s_folder_gives_its_own_name(
    run, unpaired_files, tmp_path, monkeypatch, capsys, given
) -> None:
    series(tmp_path / PATIENT, unpaired_files)
    (tmp_path / "case01").symlink_to(tmp_path / PATIENT)
    if given == ".":
        monkeypatch.chdir(tmp_path / "case01")
        monkeypatch.setenv("PWD", str(tmp_path / "case01"))  # as the shell sets it
    else:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PWD")
    out = tmp_path / "out"
    assert predict(run, given, out) == 0
    assert (out / "case01_ct.nii.gz").exists()
    assert {row["case"] for row in read_volumes(out / "volumes.csv")} == {"case01"}
    printed = "".join(capsys.readouterr())
    assert all(PATIENT not in text for text in (printed, *contents(out)))
    assert all(PATIENT.encode() not in content for content in contents(out).values())


def test_a_path_back_over_a_link_has_no_name_of_the_user_s(
    run, unpaired_files, tmp_path, capsys
) -> None:
    series(tmp_path / PATIENT / "series", unpaired_files)
    (tmp_path / "link").symlink_to(tmp_path / PATIENT / "series")
    line = refused(capsys, "predict", run, "--image", f"ct={tmp_path / 'link' / '..'}",
                   "--out", tmp_path / "out")  # fmt: skip
    assert "leads back over a link" in line and PATIENT not in line


def test_text_in_a_scan_s_header_is_not_passed_on(run, scans, tmp_path) -> None:
    image = nib.load(scans[0])
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = PATIENT[:16]
    nib.save(image, tmp_path / "scan.nii.gz")
    assert predict(run, tmp_path / "scan.nii.gz", tmp_path / "out", "--save-uncertainty") == 0
    for file in (tmp_path / "out").glob("*.nii.gz"):
        assert PATIENT[:16].encode() not in nib.load(file).header.binaryblock


def test_the_result_of_another_scan_is_never_replaced(run, scans, tmp_path, capsys) -> None:
    first, second = scans
    out = tmp_path / "out"
    assert predict(run, first, out, "--save-probabilities") == 0
    before = contents(out)
    line = refused(capsys, "predict", run, "--image", f"ct={second}", "--out", out)
    assert f"{out / 'ct_ct.nii.gz'}: is there already" in line and "--name" in line
    assert contents(out) == before
    # The way out that the message names, and the same scan once more.
    assert predict(run, second, out, "--name", "p6") == 0
    assert predict(run, first, out) == 0
    cases = [row["case"] for row in read_volumes(out / "volumes.csv")]
    assert sorted(cases) == ["ct", "ct", "p6", "p6"]
    assert contents(out)["ct_ct.nii.gz"] == before["ct_ct.nii.gz"]


def test_volumes_of_a_result_that_was_moved_away_are_kept(run, scans, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert predict(run, scans[0], out, "--name", "x") == 0
    (out / "x_ct.nii.gz").rename(tmp_path / "kept.nii.gz")
    before = contents(out)
    line = refused(capsys, "predict", run, "--image", f"ct={scans[1]}", "--out", out, "--name", "x")
    assert "volumes.csv: holds volumes of another scan's x_ct.nii.gz" in line
    assert contents(out) == before
    assert predict(run, scans[0], out, "--name", "x") == 0


def test_a_corrected_result_is_not_replaced(run, scans, tmp_path, capsys) -> None:
    out, file = tmp_path / "out", tmp_path / "out" / "ct_ct.nii.gz"
    assert predict(run, scans[0], out) == predict(run, scans[0], out) == 0
    image = nib.load(file)
    voxels = np.array(image.dataobj)
    voxels[0, 0, 0] = voxels.max() - voxels[0, 0, 0]
    nib.save(nib.Nifti1Image(voxels, None, image.header), file)
    before = contents(out)
    line = refused(capsys, "predict", run, "--image", f"ct={scans[0]}", "--out", out)
    assert "was changed since it was predicted" in line and contents(out) == before
    file.rename(tmp_path / "corrected.nii.gz")
    assert predict(run, scans[0], out) == 0


def test_a_scan_unzipped_is_the_same_scan_and_another_one_is_not(
    run, scans, tmp_path, capsys
) -> None:
    out, plain = tmp_path / "out", tmp_path / "ct.nii"
    assert predict(run, scans[0], out) == 0
    before = contents(out)
    plain.write_bytes(gzip.decompress(scans[0].read_bytes()))
    assert predict(run, plain, out) == 0 and contents(out) == before
    plain.write_bytes(gzip.decompress(scans[1].read_bytes()))
    line = refused(capsys, "predict", run, "--image", f"ct={plain}", "--out", out)
    assert "ct_ct.nii.gz: is there already and the result of another scan" in line
    assert contents(out) == before


def test_another_file_of_a_scan_is_called_so(run, scans, tmp_path, capsys) -> None:
    assert predict(run, scans[0], tmp_path / "out") == 0
    image = nib.load(scans[0])
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine), tmp_path / "ct.nii")
    line = refused(
        capsys, "predict", run, "--image", f"ct={tmp_path / 'ct.nii'}", "--out", tmp_path / "out"
    )
    assert "the result of another scan, or of another file of it" in line


def test_series_in_folders_of_one_name_are_told_apart(
    run, unpaired_files, tmp_path, capsys
) -> None:
    folders = [series(tmp_path / f"{k}" / "DICOM_anon", unpaired_files, k) for k in (4, 6)]
    out = tmp_path / "out"
    assert predict(run, folders[0], out) == predict(run, folders[0], out) == 0
    before = contents(out)
    line = refused(capsys, "predict", run, "--image", f"ct={folders[1]}", "--out", out)
    assert "the result of another scan" in line
    assert contents(out) == before


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", ".a", "a\nb"])
def test_names_that_no_file_can_have_are_refused(run, scans, tmp_path, capsys, name) -> None:
    line = refused(capsys, "predict", run, "--image", f"ct={scans[0]}", "--out", tmp_path / "o",
                   "--name", name)  # fmt: skip
    assert "--name" in line and not (tmp_path / "o").exists()


def test_files_that_are_no_results_are_not_replaced(
    run, unpaired_files, scans, tmp_path, capsys
) -> None:
    words = ["--data", unpaired_files.path, "--split", "test"]
    for name in ("ct6_ct.nii.gz", "mr6_mr_uncertainty.nii.gz"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        shutil.copy(scans[0], out / name)
        line = refused(capsys, "predict", run, *words, "--out", out)
        assert f"{out / name}: is there already" in line
        assert [path.name for path in out.iterdir()] == [name]


def test_names_of_other_classes_are_not_replaced(run, scans, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "labels.ctbl").write_text("1 heart 255 0 0 255\n")
    line = refused(capsys, "predict", run, "--image", f"ct={scans[0]}", "--out", out)
    assert "labels.ctbl: names the classes of other results" in line
    assert (out / "labels.ctbl").read_text() == "1 heart 255 0 0 255\n"


def test_several_processes_fill_one_table(tmp_path) -> None:
    def add(number: int) -> None:
        facts = {"file": f"{number}", "case": "", "modality": "", "class": "", "voxels": 1}
        append_volumes(tmp_path / "volumes.csv", [{**facts, "mL": "1.000"}])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    assert len(read_volumes(tmp_path / "volumes.csv")) == 40


def test_scores_of_another_split_are_not_replaced(run, unpaired_files, tmp_path, capsys) -> None:
    words = ["evaluate", str(run), "--data", str(unpaired_files.path), "--out", str(tmp_path)]
    assert main([*words, "--split", "val"]) == main([*words, "--split", "val"]) == 0
    before = contents(tmp_path)
    assert "scores of split val, asked for test" in refused(capsys, *words, "--split", "test")
    other = trained(unpaired_files.path, tmp_path / "other", "--method", "sup")
    line = refused(capsys, words[0], other, *words[2:], "--split", "val")
    assert "scores of mark" in line
    assert {name: before[name] for name in before} == {
        name: (tmp_path / name).read_bytes() for name in before
    }


def test_other_files_are_not_replaced(run, unpaired_files, tmp_path, capsys) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("my own\n")
    data = ["--data", unpaired_files.path]
    onnx = mine.with_name("mine_ct.onnx")
    onnx.write_text("my own\n")
    weights = mine.with_name("mine.safetensors")
    weights.write_text("my own\n")
    checkpoint = run / "checkpoints" / "best.safetensors"
    for words in (
        ["report", run, "--out", mine],
        ["rank-cases", run, *data, "--out", mine],
        ["rank-cases", run, *data, "--out", mine, "--strategy", "random"],
        ["check", unpaired_files.path, "--json", mine],
        ["export", run, "--onnx", tmp_path / "mine"],
        ["weights", "convert", checkpoint, "--out", weights],
    ):
        assert "is there already" in refused(capsys, *words)
    assert {p.read_text() for p in (mine, onnx, weights)} == {"my own\n"}


def test_a_report_is_made_anew_and_another_run_s_is_not(
    run, unpaired_files, tmp_path, capsys
) -> None:
    out = tmp_path / "report.html"
    for _ in range(2):
        assert main(["report", str(run), "--out", str(out)]) == 0
    other = trained(unpaired_files.path, tmp_path / "other", "--method", "sup", "--seed", "1")
    assert "no report on" in refused(capsys, "report", other, "--out", out)


def test_pictures_of_another_data_set_are_not_replaced(
    unpaired_files, paired_files, tmp_path, capsys
) -> None:
    picture = tmp_path / "one.png"
    plain = tmp_path / "s0.png"
    stack_pictures([_white(picture)], plain)
    before = plain.read_bytes()
    assert main(["check", str(paired_files.path), "--overlay", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err and plain.read_bytes() == before
    plain.unlink()
    for _ in range(2):
        assert main(["check", str(paired_files.path), "--overlay", str(tmp_path)]) == 0


def _white(path: Path) -> Path:
    from matplotlib.image import imsave

    imsave(path, np.ones((2, 2, 3)))
    return path
