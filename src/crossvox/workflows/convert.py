"""Describe a data set in some layout by a manifest."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table

from crossvox.data.convert.assemble import ConvertOptions, build_manifest
from crossvox.data.convert.copying import copy_files
from crossvox.data.convert.raw import RawDataset
from crossvox.data.convert.unused import unused_by_conversion
from crossvox.data.formats.nifti import read_nifti
from crossvox.data.geometry import Grid
from crossvox.data.manifest import SPLITS, Case, Manifest
from crossvox.errors import UsageError
from crossvox.workflows.messages import tracked

Grids = Mapping[str, list[Grid]]
"""Modality → the grids of its scans."""


def convert(
    raw: RawDataset,
    options: ConvertOptions,
    out: Path,
    source: str,
    *,
    copy: bool = False,
) -> tuple[Manifest, Table]:
    """Write `out/dataset.json` for a raw data set; its NIfTI files stay where they are.

    Args:
        raw: the data set.
        options: what to take of it.
        out: folder of the manifest.
        source: how the manifest is made, to be noted in it.
        copy: copy the files taken to `out/images` and `out/labels`.

    Returns:
        The manifest and a table that summarises it.

    Raises:
        UsageError: the options cannot be met.
        DataError: a scan cannot be read; then no manifest is written.
    """
    manifest, notes = build_manifest(raw, options, source)
    notes += [*_paired_note(raw, manifest), *unused_by_conversion(raw, manifest, out)]
    if raw.write is not None:
        manifest = raw.write(manifest, out, partial(tracked, doing="writing"))
    grids: dict[str, list[Grid]] = {modality: [] for modality in manifest.modalities}
    for case in tracked(manifest.cases, "reading headers"):
        for modality, file in case.images.items():
            # Scans of unusable geometry are for `crossvox check` to list, all at once.
            grids[modality].append(read_nifti(file, voxels=False).require_readable().grid)
    if copy and raw.write is None:
        manifest = copy_files(manifest, out, partial(tracked, doing="copying"))
    manifest.save(out / "dataset.json")
    for line in [*notes, *root_note(manifest, out)]:
        print(line)
    return manifest, summary(manifest, grids)


def _paired_note(raw: RawDataset, manifest: Manifest) -> list[str]:
    """Return a line on the cases that have several modalities, and on the flag that parts them."""
    paired = [case for case in manifest.cases if len(case.images) > 1]
    if not paired:
        return []
    first = f"{paired[0].id}: {' and '.join(paired[0].images)}"
    note = f"{len(paired)} of {len(manifest.cases)} cases have several modalities ({first})"
    if raw.unpair:
        note += f"; if cases of one name are other patients in each, add {raw.unpair}"
    return [note]


def root_note(manifest: Manifest, folder: Path) -> list[str]:
    """Return a line on the `--root` that a manifest in `folder` needs, if it needs one."""
    root = manifest.needed_root(folder)
    return (
        [f"its files lie elsewhere: name it together with --root {shlex.quote(str(root))}"]
        if root
        else []
    )


def require_new(path: Path, overwrite: bool) -> None:
    """Raise `UsageError` if a file is there that must not be overwritten."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another --out, or --overwrite to write there")


def summary(manifest: Manifest, grids: Grids | None = None) -> Table:
    """Return a table of cases and labels per modality and split.

    Args:
        manifest: the data set.
        grids: of its scans, for columns with the median spacing and size.
    """
    table = Table(title=escape(f"{manifest.name}: {len(manifest.cases)} cases"))
    table.add_column("modality")
    for split in SPLITS:
        table.add_column(split, justify="right")
    for name in ("median mm", "median voxels") if grids else ():
        table.add_column(name, justify="right", no_wrap=True)
    for modality, kind in manifest.modalities.items():
        cells = [_counts(manifest.split(split), modality) for split in SPLITS]
        if grids:
            cells += _medians(grids[modality])
        table.add_row(modality if modality == kind else escape(f"{modality} ({kind})"), *cells)
    labels = ", ".join(f"{name} {id}" for name, id in manifest.labels.items())
    table.caption = escape(f"(labelled); labels: {labels}")
    return table


def _counts(cases: Iterable[Case], modality: str) -> str:
    scans = [case for case in cases if modality in case.images]
    labelled = sum(modality in case.labels for case in scans)
    return f"{len(scans)} ({labelled})" if scans else "0"


def _medians(grids: list[Grid]) -> list[str]:
    if not grids:
        return ["", ""]
    spacing = np.median([grid.spacing for grid in grids], axis=0)
    shape = np.median([grid.shape for grid in grids], axis=0)
    return ["×".join(f"{x:.3g}" for x in spacing), "×".join(f"{n:.0f}" for n in shape)]
