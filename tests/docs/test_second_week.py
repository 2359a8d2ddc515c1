"""One round of docs/tutorials/second-week.md, but for the size of scans and training."""

from __future__ import annotations

from functools import partial

from crossvox.cli.main import main
from crossvox.data import phantom
from crossvox.data.manifest import load_manifest
from crossvox.data.phantom import write_phantom
from crossvox.workflows.labelling.drafts import DraftFolder
from crossvox.workflows.run import Run
from fixtures.docs import ROOT, blocks, command_lines
from fixtures.run import SMALL

PAGE = ROOT / "docs" / "tutorials" / "second-week.md"


def test_a_week_from_two_labels_to_more(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phantom, "write_phantom", partial(write_phantom, shape=(40, 32, 16)))
    done = []
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile(block.text, str(PAGE), "exec"), {})
        for words in command_lines(block.text):
            small = SMALL if words[0] == "train" and "--start-from" not in words else ()
            assert main([*words, *small]) == 0, words
            done.append(words[0])
            if words[0] == "adopt":
                told = capsys.readouterr().out.splitlines()[-1]
                follows = next(w for b in blocks(PAGE) for w in command_lines(b.text)
                               if "--start-from" in w)  # fmt: skip
                assert told.split() == ["next:", "crossvox", *follows]
    assert done == ["convert", "train", "draft", "adopt", "train", "draft"]

    first, second = Run.load(tmp_path / "runs/first"), Run.load(tmp_path / "runs/first-2")
    assert len(second.selection.labels) == len(first.selection.labels) + 2 == 6
    assert second.plan.task.patch == first.plan.task.patch
    manifest = load_manifest(tmp_path / "study" / "dataset.json")
    adopted = second.selection.labels - first.selection.labels
    for case, modality in adopted:
        label = manifest.case(case).labels[modality]
        assert label == tmp_path / "study" / "scans" / modality / "labels" / f"{case}.nii.gz"
    again = {draft.case for draft in DraftFolder.load(tmp_path / "drafts-2").drafts}
    assert not again & {case for case, _ in adopted}
