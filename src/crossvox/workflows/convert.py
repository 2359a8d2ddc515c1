"""Describe a data set that lies in some layout, by a manifest."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from crossvox.data.convert.assemble import Choice, assemble
from crossvox.data.convert.copying import copied
from crossvox.data.convert.layout import Found
from crossvox.data.formats.nifti import read_nifti
from crossvox.data.geometry import Grid
from crossvox.data.manifest import SPLITS, Case, Manifest
from crossvox.errors import UsageError
from crossvox.workflows.messages import Echo

Grids = Mapping[str, list[Grid]]
"""Modality → the grids of its scans."""


def convert(
    found: Found,
    choice: Choice,
    out: Path,
    source: str,
    *,
    copy: bool = False,
    echo: Echo = print,
) -> tuple[Manifest, Table]:
    """Write `out/dataset.json` for what a converter found; NIfTI files stay where they are.

    Args:
        found: the data set.
        choice: what to take of it.
        out: folder of the manifest.
        source: how it is made, for the manifest.
        copy: copy the files taken to `out/images` and `out/labels`.
        echo: takes the lines for the user.

    Returns:
        The manifest and a table that sums it up.

    Raises:
        UsageError: the choice cannot be met.
        DataError: a scan cannot be read; no manifest is written then.
    """
    manifest, notes = assemble(found, choice, source)
    if found.write is not None:
        manifest = found.write(manifest, out, lambda cases: _tracked(cases, "writing"))
    grids: dict[str, list[Grid]] = {modality: [] for modality in manifest.modalities}
    for case in _tracked(manifest.cases, "reading headers"):
        for modality, file in case.images.items():
            grids[modality].append(read_nifti(file, voxels=False).require_readable().grid)
    if copy and found.write is None:
        manifest = copied(manifest, out, lambda cases: _tracked(cases, "copying"))
    manifest.save(out / "dataset.json")
    for line in [*notes, *root_note(manifest, out)]:
        echo(line)
    return manifest, summary(manifest, grids)


def root_note(manifest: Manifest, folder: Path) -> list[str]:
    """A line on the option that reading a manifest in `folder` will take; none if it takes none."""
    root = manifest.needed_root(folder)
    return (
        [f"its files lie elsewhere: name it together with --root {shlex.quote(str(root))}"]
        if root
        else []
    )


def require_new(path: Path, overwrite: bool) -> None:
    """Raise `UsageError` if there is something that was not to be written over."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another --out, or --overwrite to write there")


def summary(manifest: Manifest, grids: Grids | None = None) -> Table:
    """Cases and labels per modality and split, and the typical grid where `grids` are given."""
    table = Table(title=escape(f"{manifest.name}: {len(manifest.cases)} cases"))
    table.add_column("modality")
    for split in SPLITS:
        table.add_column(split, justify="right")
    for name in ("median mm", "median voxels") if grids else ():
        table.add_column(name, justify="right", no_wrap=True)
    for modality, kind in manifest.modalities.items():
        cells = [_counts(manifest.split(split), modality) for split in SPLITS]
        if grids:
            cells += _typical(grids[modality])
        table.add_row(modality if modality == kind else escape(f"{modality} ({kind})"), *cells)
    labels = ", ".join(f"{name} {id}" for name, id in manifest.labels.items())
    table.caption = escape(f"(labelled); labels: {labels}")
    return table


def _counts(cases: Iterable[Case], modality: str) -> str:
    own = [case for case in cases if modality in case.images]
    labelled = sum(modality in case.labels for case in own)
    return f"{len(own)} ({labelled})" if own else "0"


def _typical(grids: list[Grid]) -> list[str]:
    if not grids:
        return ["", ""]
    spacing = np.median([grid.spacing for grid in grids], axis=0)
    shape = np.median([grid.shape for grid in grids], axis=0)
    return ["×".join(f"{x:.3g}" for x in spacing), "×".join(f"{n:.0f}" for n in shape)]


def _tracked(cases: Iterable[Case], what: str) -> Iterable[Case]:
    return track(list(cases), what, disable=not sys.stdout.isatty(), transient=True)
