"""Synthetic two-modality scans of an abdomen-like phantom, for trying things out."""

from crossvox.data.phantom.writer import LABELS, write_phantom

__all__ = ["LABELS", "write_phantom"]
