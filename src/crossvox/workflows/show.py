"""Show a scan and its labels in a notebook."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crossvox.batch import FUSED
from crossvox.data.formats.nifti import Scan, Volume, as_volume, read_label, read_nifti
from crossvox.data.manifest import Case
from crossvox.errors import DataError, UsageError
from crossvox.figures.overlays import overlay_figure
from crossvox.utils.palette import class_rgb


@dataclass(frozen=True)
class Picture:
    """A figure that notebooks display. `figure.savefig` writes it to a file."""

    figure: Figure

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        FigureCanvasAgg(self.figure)
        self.figure.savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()


def show(
    case: Case | Mapping[str, Scan],
    labels: Mapping[str, Path | str | np.ndarray] | None = None,
    *,
    modality: str | None = None,
    classes: Sequence[str] | Mapping[str, int] = (),
) -> Any:
    """Show a scan with labels on it: a NiiVue widget if ipyniivue is installed, else slices.

    >>> prediction = predictor.predict({"ct": "scan.nii.gz"})
    >>> show({"ct": "scan.nii.gz"}, prediction.labels, classes=predictor.classes)

    Args:
        case: of a manifest, or modality → scan as `Predictor.predict` takes them.
        labels: modality → (X, Y, Z) class indices such as `Prediction.labels`, or a label file;
            "fused" names the map of all scans, on the grid of the first; None = the case's own.
        modality: which scan to show; None = the first.
        classes: names of class 1, 2, …, or name → id in the label files (`Manifest.labels`);
            by default, classes and ids are called by their numbers.

    Returns:
        An `ipyniivue.NiiVue` widget, or a `Picture` of three slices. Notebooks display both.

    Raises:
        UsageError: the case has no such modality, or names without ids for a label file.
        DataError: a file cannot be read, or labels are not on the scan's grid.
    """
    images = case.images if isinstance(case, Case) else case
    if labels is None:
        labels = case.labels if isinstance(case, Case) else {}
    if not images or modality not in (None, *images):
        raise UsageError(f"no scan of modality '{modality}'; choose from {', '.join(images)}")
    modality = modality or next(iter(images))
    scan = as_volume(images[modality])
    indices: np.ndarray | None = None
    names: list[str] = []
    # A fused label map lies on the grid of the first scan.
    is_fused = modality not in labels and modality == next(iter(images))
    shown = FUSED if is_fused else modality
    if shown in labels:
        indices, names = _class_indices(labels[shown], classes)
    if indices is not None and indices.shape != scan.data.shape:
        raise DataError(
            f"labels of shape {indices.shape} on a scan of shape {scan.data.shape}; "
            "give those of this scan"
        )
    try:
        import ipyniivue
    except ImportError:
        return _picture(scan, indices, names, modality)
    return _niivue_widget(ipyniivue, scan, indices, names)


def _class_indices(
    labels: Path | str | np.ndarray, classes: Sequence[str] | Mapping[str, int]
) -> tuple[np.ndarray, list[str]]:
    """Return (X, Y, Z) class indices and the names of class 1, 2, …"""
    if not isinstance(labels, Path | str):
        indices = np.asarray(labels)
        return indices, list(classes) or _default_names(range(1, int(indices.max(initial=0)) + 1))
    if isinstance(classes, Mapping):
        return read_label(Path(labels), classes), list(classes)
    if classes:
        raise UsageError(f"{labels}: names alone do not say which id is which; give name → id")
    ids = np.unique(np.round(read_nifti(Path(labels)).values()).astype(int))
    found = dict(zip(_default_names(ids[ids > 0]), ids[ids > 0].tolist(), strict=True))
    return read_label(Path(labels), found), list(found)


def _default_names(values: Iterable[int]) -> list[str]:
    return [f"label {value}" for value in values]


def _picture(scan: Volume, indices: np.ndarray | None, names: list[str], title: str) -> Picture:
    figure = overlay_figure(
        scan.data,
        scan.grid.spacing.tolist(),
        {} if indices is None else {"labels": indices},
        names,
        title=title,
        orientation=scan.grid.orientation,
    )
    return Picture(figure)


def _niivue_widget(
    ipyniivue: Any, scan: Volume, indices: np.ndarray | None, names: list[str]
) -> Any:
    affine = scan.grid.affine
    viewer = ipyniivue.NiiVue()
    volumes: list[dict[str, Any]] = [
        {"name": "scan.nii", "data": _to_nifti(scan.data, affine), "colormap": "gray"}
    ]
    if indices is None:
        viewer.load_volumes(volumes)
        return viewer
    data = _to_nifti(np.maximum(indices, 0).astype(np.int16), affine)
    viewer.load_volumes([*volumes, {"name": "labels.nii", "data": data, "opacity": 0.5}])
    colours = [(0, 0, 0), *(class_rgb(k) for k in range(1, len(names) + 1))]
    red, green, blue = (list(channel) for channel in zip(*colours, strict=True))
    opaque = [0] + [255] * len(names)
    table = {"R": red, "G": green, "B": blue, "A": opaque, "labels": ["background", *names]}
    viewer.volumes[1].set_colormap_label(table)
    return viewer


def _to_nifti(data: np.ndarray, affine: np.ndarray) -> bytes:
    return nib.Nifti1Image(data, affine).to_bytes()
