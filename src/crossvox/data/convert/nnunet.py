"""nnU-Net raw data, version 2 and 1 (Isensee et al., Nature Methods 2021), and the Decathlon's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from crossvox.data.convert.layout import Found, Subject, nothing_found, require_source, volumes
from crossvox.errors import DataError, UsageError
from crossvox.utils.documents import parse_json

KINDS = {"ct": "ct", "pet": "pet", "us": "us"}
"""Channel name → kind; every other channel is scaled by its own mean and deviation, as MR is."""


def find_nnunet(source: Path) -> Found:
    """A folder with `dataset.json`, `imagesTr/CASE_0000.nii.gz` and `labelsTr/CASE.nii.gz`.

    The files may also stand in `dataset.json`, under `dataset`. Channels become modalities, of
    which a case may lack some here; their common grid makes the set registered. `imagesTs`
    becomes the test split, with the labels of `labelsTs` if there are any, and the label `ignore`
    the manifest's `ignore`.

    Raises:
        UsageError: labels that are regions, files that are no NIfTI, no scans.
        DataError: `dataset.json` is missing or not what nnU-Net writes.
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
        subjects = _listed(source, content["dataset"], list(channels.values()), file)
    else:
        subjects = _subjects(source, "Tr", "", channels)
    subjects += _subjects(source, "Ts", "test", channels)
    if not subjects:
        raise nothing_found(source, "imagesTr/CASE_0000.nii.gz and the like")
    kinds = {name: KINDS.get(name.lower(), "mr") for name in channels.values()}
    name = str(content.get("name") or content.get("dataset_name") or source.name)
    return Found(name, kinds, labels, tuple(subjects), len(channels) > 1, ignore)


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
    """Number → name that may stand in file names and options; version 1 calls them modality."""
    found = content.get("channel_names", content.get("modality"))
    if not isinstance(found, dict) or not found:
        raise DataError(f"{file}: no channel_names (version 1: modality); expected nnU-Net's file")
    names: dict[int, str] = {}
    for number, name in found.items():
        plain = re.sub(r"[^\w.-]+", "_", str(name)).strip("._-").lower() or f"channel{number}"
        names[int(number)] = f"{plain}_{number}" if plain in names.values() else plain
    return names


def _labels(content: dict[str, Any], file: Path) -> tuple[dict[str, int], int | None]:
    """Class name → id, without background; and the id of what nobody annotated."""
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


def _listed(source: Path, listed: Any, channels: list[str], file: Path) -> list[Subject]:
    """The cases whose files stand in `dataset.json` itself, with paths relative to it."""
    try:
        return [
            Subject(
                case,
                {m: source / name for m, name in zip(channels, entry["images"], strict=True)},
                dict.fromkeys(channels, source / entry["label"]),
            )
            for case, entry in listed.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: 'dataset' is not of the form case → images (one per channel), label ({error})"
        ) from error


def _subjects(source: Path, part: str, split: str, channels: dict[int, str]) -> list[Subject]:
    labels = volumes(source / f"labels{part}")
    images: dict[str, dict[str, Path]] = {}
    for name, file in volumes(source / f"images{part}").items():
        numbered = re.fullmatch(r"(.+)_(\d{4})", name)
        if numbered and int(numbered[2]) in channels and name not in labels:
            images.setdefault(numbered[1], {})[channels[int(numbered[2])]] = file
        elif len(channels) == 1:  # the Decathlon's files of one channel bear no number
            images.setdefault(name, {})[next(iter(channels.values()))] = file
        else:
            raise UsageError(
                f"{file}: no number of a channel (_0000 …) in its name, where there are "
                f"{len(channels)} channels; split 4-D files into one file per channel"
            )
    return [
        Subject(
            case,
            {m: found[m] for m in channels.values() if m in found},
            dict.fromkeys(found, labels[case]) if case in labels else {},
            split,
        )
        for case, found in images.items()
    ]
