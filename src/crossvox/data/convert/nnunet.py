"""Raw data of nnU-Net 2 and 1 (Isensee et al., Nature Methods 2021) and of the Decathlon."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from crossvox.data.convert.raw import RawDataset, nifti_files, nothing_found, require_source
from crossvox.data.manifest import Case
from crossvox.errors import DataError, UsageError
from crossvox.utils.documents import parse_json

KINDS = {"ct": "ct", "pet": "pet", "us": "us"}
"""Channel name → kind; all other channels count as MR, which is scaled by mean and deviation."""


def find_nnunet(source: Path) -> RawDataset:
    """Find `dataset.json`, `imagesTr/CASE_0000.nii.gz` and `labelsTr/CASE.nii.gz` in a folder.

    `dataset.json` may also list the files, under `dataset`. Channels become modalities. They share
    a grid, so the set is registered; a case may lack some of them here. `imagesTs` becomes the
    test split, with labels from `labelsTs` if there are any. The label `ignore` becomes the
    manifest's `ignore`.

    Raises:
        UsageError: labels are regions, files are not NIfTI, or there are no scans.
        DataError: `dataset.json` is missing or not as nnU-Net writes it.
    """
    source = require_source(source)
    file = source / "dataset.json"
    content = _read(file)
    ending = content.get("file_ending", ".nii.gz")
    if ending not in (".nii.gz", ".nii"):
        raise UsageError(f"{file}: files of type {ending}; convert them to .nii.gz first")
    try:
        channels = _channels(content, file)
        labels, ignore = _labels(content, file)
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: a channel or label without a whole number ({error})") from error
    if "dataset" in content:
        cases = _listed_cases(source, content["dataset"], list(channels.values()), file)
    else:
        cases = _cases(source, "Tr", "", channels)
    cases += _cases(source, "Ts", "test", channels)
    if not cases:
        raise nothing_found(source, "imagesTr/CASE_0000.nii.gz and the like")
    kinds = {name: KINDS.get(name.lower(), "mr") for name in channels.values()}
    name = str(content.get("name") or content.get("dataset_name") or source.name)
    return RawDataset(name, kinds, labels, tuple(cases), len(channels) > 1, ignore, folder=source)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file; name the folder of nnU-Net's raw data") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not readable as JSON ({error}); correct it there") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: not an object; expected nnU-Net's dataset.json")
    return content


def _channels(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Return number → name that can be part of a file name; version 1 calls them modality."""
    found = content.get("channel_names", content.get("modality"))
    if not isinstance(found, dict) or not found:
        raise DataError(f"{file}: no channel_names (version 1: modality); expected nnU-Net's file")
    names: dict[int, str] = {}
    for number, name in found.items():
        plain = re.sub(r"[^\w.-]+", "_", str(name)).strip("._-").lower() or f"channel{number}"
        names[int(number)] = f"{plain}_{number}" if plain in names.values() else plain
    return names


def _labels(content: dict[str, Any], file: Path) -> tuple[dict[str, int], int | None]:
    """Return class name → id, without background, and the id of unannotated voxels."""
    found = content.get("labels")
    if not isinstance(found, dict):
        raise DataError(f"{file}: no labels; expected nnU-Net's file")
    if found and all(str(key).isdecimal() for key in found):  # version 1: id → name
        found = {name: int(id) for id, name in found.items()}
    labels: dict[str, int] = {}
    ignore = None
    for name, id in found.items():
        if isinstance(id, list):
            raise UsageError(
                f"{file}: label {name!r} is the region {id}, and regions overlap; give classes "
                "ids of their own (convert folders --ids …), and add up regions when scoring"
            )
        if name == "ignore":
            ignore = int(id)
        elif int(id) != 0:
            labels[str(name)] = int(id)
    return labels, ignore


def _listed_cases(source: Path, listed: Any, channels: list[str], file: Path) -> list[Case]:
    """Return the cases whose files `dataset.json` lists, with paths relative to it."""
    try:
        return [
            Case(
                case,
                "",
                {m: source / name for m, name in zip(channels, entry["images"], strict=True)},
                dict.fromkeys(channels, source / entry["label"]),
            )
            for case, entry in listed.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: 'dataset' is not of the form case → images (one per channel), label ({error})"
        ) from error


def _cases(source: Path, part: str, split: str, channels: dict[int, str]) -> list[Case]:
    labels = nifti_files(source / f"labels{part}")
    images: dict[str, dict[str, Path]] = {}
    for name, file in nifti_files(source / f"images{part}").items():
        numbered = re.fullmatch(r"(.+)_(\d{4})", name)
        if numbered and int(numbered[2]) in channels and name not in labels:
            images.setdefault(numbered[1], {})[channels[int(numbered[2])]] = file
        elif len(channels) == 1:  # the Decathlon does not number a single channel
            images.setdefault(name, {})[next(iter(channels.values()))] = file
        else:
            raise UsageError(
                f"{file}: no number of a channel (_0000 …) in its name, where there are "
                f"{len(channels)} channels; split 4-D files into one file per channel"
            )
    return [
        Case(
            case,
            split,
            {m: found[m] for m in channels.values() if m in found},
            dict.fromkeys(found, labels[case]) if case in labels else {},
        )
        for case, found in images.items()
    ]
