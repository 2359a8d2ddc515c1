"""How often scans are told to be odd: right ones, wrong ones, and cases of two patients.

    python benchmarks/odd_scans.py --data heart=heart.json --data abdomen=abdomen.json

It prints the numbers behind docs/reference/dataset.md (scans in each other's place) and
docs/guides/convert.md (scans of one case). Each scan is compared with all others of its set and
modality, as if they were a run's training scans.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossvox.data.checks.extent import Sizes, extent_problems
from crossvox.data.checks.intensities import Intensities, describe, intensity_problems
from crossvox.data.checks.values import hounsfield_problems
from crossvox.data.formats.nifti import read_nifti
from crossvox.data.geometry import Grid, dataset_frame
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.prepare.partners import CASES, information_gains
from crossvox.data.prepare.preprocess import SOFT_TISSUE
from crossvox.data.values import Values, measure_values
from crossvox.utils.text_table import TextTable, to_markdown


@dataclass(frozen=True)
class Scan:
    """A scan as far as it is compared: its place in the data, its grid, its values."""

    data: str
    kind: str
    modality: str
    case: str
    grid: Grid
    values: Values

    def is_told(self, kind: str, others: Sequence[Scan]) -> bool:
        """Return whether anything is told if this scan is given as one of the others' modality."""
        floor = SOFT_TISSUE[0] if kind == "ct" else None
        grids = [scan.grid for scan in others]
        sizes = Sizes.of(grids, dataset_frame(grids))
        usual = Intensities.of([describe(scan.values, floor) for scan in others], floor)
        found = [*extent_problems(self.grid, sizes), *intensity_problems(self.values, usual)]
        return bool(found or (kind == "ct" and hounsfield_problems(self.values)))


def main() -> None:
    """Read the scans, try them in each other's places, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", action="append", required=True, metavar="NAME=DATASET.json")
    given = dict(word.split("=", 1) for word in parser.parse_args().data)
    manifests = {name: load_manifest(Path(path)) for name, path in given.items()}
    groups = {
        (name, modality): read(name, manifest, modality)
        for name, manifest in manifests.items()
        for modality in manifest.modalities
    }
    print(to_markdown(told_table(groups)))
    print(to_markdown(gain_table(manifests)))


def read(name: str, manifest: Manifest, modality: str) -> list[Scan]:
    """Read all scans of a modality."""
    found = []
    for case in (case for case in manifest.cases if modality in case.images):
        file = read_nifti(case.images[modality], form=case.form(modality))
        header = file.require_sound()
        assert file.stored is not None
        stored = file.stored.reshape(header.shape[:3], order="F")
        values = measure_values(stored, header.scale)
        kind = manifest.modalities[modality]
        found.append(Scan(name, kind, modality, case.id, header.grid, values))
    return found


def told_table(groups: dict[tuple[str, str], list[Scan]]) -> TextTable:
    """Count the scans that are told, given as every modality of every set."""
    rows = []
    for (name, modality), places in groups.items():
        kind = places[0].kind
        for (other, own), scans in groups.items():
            right = (other, own) == (name, modality)
            told = sum(
                scan.is_told(kind, [s for s in places if s is not scan] if right else places)
                for scan in scans
            )
            given = f"{other} {own}" + (", rightly" if right else "")
            rows.append([f"{name} {modality}", given, f"{told} of {len(scans)}"])
    return TextTable("Scans that are told", ["as", "given", "told"], rows, left=2)


def gain_table(manifests: dict[str, Manifest]) -> TextTable:
    """Compare pairs as the manifest has them, or as their order pairs them, and mixed-up ones."""
    rows = []
    for name, manifest in manifests.items():
        first, second, *_ = [*manifest.modalities, ""]
        if not second:
            continue
        fixed, moving = (
            [case for case in manifest.cases if m in case.images] for m in (first, second)
        )
        true = [case for case in fixed if case in moving]
        for text, cases in (
            ("pairs of the manifest", true),
            ("mixed up", joined(true or fixed, true or moving, first, second, 1)),
            ("mixed up otherwise", joined(true or fixed, true or moving, first, second, 3)),
        ):
            chosen = cases[:: max(1, len(cases) // CASES)][:CASES]
            if chosen:
                gain = float(np.median(information_gains(chosen, first, second)))
                rows.append([name, text, f"{gain:.2f}"])
    return TextTable("Mutual information, times strangers'", ["data", "pairs", "median"], rows, 2)


def joined(
    fixed: Sequence[Case], moving: Sequence[Case], first: str, second: str, shift: int
) -> list[Case]:
    """Return cases made of scans of different cases."""
    pairs = zip(fixed, [*moving[shift:], *moving[:shift]], strict=False)
    return [replace(a, images={first: a.images[first], second: b.images[second]}) for a, b in pairs]


if __name__ == "__main__":
    main()
