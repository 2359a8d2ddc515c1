from __future__ import annotations

from crossvox.cli.main import main


def test_prepare_fills_a_store_and_prints_the_plan(unpaired_files, tmp_path, capsys):
    store = tmp_path / "an ü store"
    argv = ["prepare", str(unpaired_files.path), "--out", str(store)]
    assert main([*argv, "--budget.spacing", "[4, 4, 4]"]) == 0
    text = capsys.readouterr().out
    assert "4.00 × 4.00 × 4.00 mm" in text and "ct: 5 training images" in text
    assert len(list(store.glob("*/images/*/*.b2nd"))) == 14
    assert len(list(store.glob("*/labels/*/*.b2nd"))) == 14
    assert main([*argv, "--budget.spacing", "[5, 5, 5]"]) == 0
    assert len(list(store.glob("*/images/*/*.b2nd"))) == 28  # the others stay as they were
