"""EFCD: evidence fusion with contextual discounting (Huang et al., MICCAI 2022)."""

from crossvox.methods.efcd.method import EFCD

__all__ = ["EFCD"]
