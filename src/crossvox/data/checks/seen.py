"""The training scans of a run, as far as a scan to predict is compared with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from crossvox.data.checks.extent import Sizes
from crossvox.data.checks.intensities import Intensities
from crossvox.data.checks.volumes import VolumeRange


@dataclass(frozen=True)
class Seen:
    """What the training scans of a modality were like. It names no scan.

    Attributes:
        sizes: their fields of view and voxel sizes.
        intensities: their values; None before they were read.
        volumes: class → its volumes in the labelled ones.
    """

    sizes: Sizes
    intensities: Intensities | None = None
    volumes: Mapping[str, VolumeRange] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Seen:
        """Invert `to_dict`."""
        intensities = values["intensities"]
        return cls(
            Sizes.from_dict(values["sizes"]),
            None if intensities is None else Intensities.from_dict(intensities),
            {name: VolumeRange(**volumes) for name, volumes in values["volumes"].items()},
        )
