"""The options of `crossvox convert folders`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser

from crossvox.cli.parsing import required
from crossvox.cli.values import integers, pairs
from crossvox.data.convert.folders import Patterns, find_folders
from crossvox.data.convert.raw import RawDataset


def folders_options(parser: ArgumentParser) -> Callable[[dict[str, Any]], RawDataset]:
    """Add the options of `crossvox convert folders`; returns what finds the scans by them."""
    parser.add_argument(
        "--pattern",
        type=str | None,
        help="of the images' paths, e.g. {case}_{modality}.nii.gz; * is any text, **/ any folders",
    )
    parser.add_argument(
        "--labels-pattern",
        "--labels_pattern",
        type=str | None,
        help="likewise of the label maps; without {modality}, one serves all "
        "images of a case; default: nothing is labelled",
    )
    parser.add_argument(
        "--kind", type=str | None, help="kind of each modality: ct=ct,t1=mr; no other name is one"
    )
    parser.add_argument(
        "--ids",
        type=str | None,
        help="class ids in the label maps: liver=1,spleen=4, or a JSON file of the same",
    )
    parser.add_argument(
        "--registered",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="the images of a case agree voxel by voxel in world space",
    )
    parser.add_argument(
        "--unpaired",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="cases of one name are other subjects in each modality",
    )
    return _find


def _find(values: dict[str, Any]) -> RawDataset:
    required(values, "pattern", "kind", "ids")
    patterns = Patterns(
        images=values["pattern"],
        labels=values["labels_pattern"],
        kinds=pairs("--kind", values["kind"]),
        ids=integers("--ids", values["ids"]),
        registered=values["registered"],
        unpaired=values["unpaired"],
    )
    return find_folders(values["source"], patterns)
