"""The manifest of a data set: its cases, their splits, and the labels that a run may use."""

from crossvox.data.manifest.manifest import (
    SPLITS,
    Case,
    Manifest,
    as_manifest,
    load_manifest,
    load_valid_cases,
)

__all__ = ["SPLITS", "Case", "Manifest", "as_manifest", "load_manifest", "load_valid_cases"]
