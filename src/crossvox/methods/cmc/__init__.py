"""CMC, read beside the paper (Zhou et al., MICCAI 2024)."""

from crossvox.methods.cmc.method import CMC

__all__ = ["CMC"]
