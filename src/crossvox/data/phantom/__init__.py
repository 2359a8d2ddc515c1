"""Synthetic two-modality scans, for trying things out."""

from crossvox.data.phantom.writer import LABELS, write_phantom

__all__ = ["LABELS", "write_phantom"]
