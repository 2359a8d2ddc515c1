"""The page of a folder of drafts: what to correct, where to look, how to go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from crossvox.report.page import Bullets, Charts, Code, Page, Section, render
from crossvox.report.report import CAUTION, IMAGES, SUBTITLE
from crossvox.utils.files import atomic_write
from crossvox.utils.text_table import TextTable
from crossvox.workflows.labelling.drafts import DraftFolder

PAGE = "work_list.html"

HOW = (
    "Open a scan and its label map in a viewer. labels.ctbl (3D Slicer) and labels.itksnap.txt "
    "(ITK-SNAP) hold names and colours.",
    "Correct every class, in every slice. The slices below are those of most doubt; the draft may "
    "be wrong elsewhere, too.",
    "Save the label map under its own name, with the same ids. as_drafted/ holds the drafts as "
    "they were; leave it as it is.",
    "Then run the command below. It takes what was corrected, and may be run again.",
)


def write_work_list_page(folder: DraftFolder, figures: Mapping[str, Figure], command: str) -> Path:
    """Write `work_list.html` into a folder of drafts.

    Args:
        folder: the drafts.
        figures: by the drafts' names.
        command: adopts them.
    """
    rows = [
        [
            str(rank),
            draft.name,
            draft.scan,
            draft.label,
            "" if draft.uncertainty is None else f"{draft.uncertainty:.3f}",
        ]
        for rank, draft in enumerate(folder.drafts, start=1)
    ]
    note = "Uncertainty is the mean over the drafted foreground, 0 to 1."
    table = TextTable("", ("rank", "scan", "image", "label map", "uncertainty"), rows, 4, note=note)
    sections = [
        Section("Work list", [table]),
        Section("How to go on", [Bullets(HOW), Code("When they are corrected", command)]),
        *(
            Section(
                name, [Charts({f"The draft of {name}, and where it is unsure": figure}, wide=True)]
            )
            for name, figure in figures.items()
        ),
    ]
    warnings = [IMAGES.format(len(figures)), CAUTION]
    page = Page("Scans to correct", sections, SUBTITLE, warnings)
    atomic_write(folder.path / PAGE, render(page))
    print(f"{folder.path / PAGE}: what to correct, and where to look")
    return folder.path / PAGE
