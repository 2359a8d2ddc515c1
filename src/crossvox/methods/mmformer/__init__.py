"""mmFormer: one network for every combination of modalities (Zhang et al., MICCAI 2022)."""

from crossvox.methods.mmformer.method import MMFormerMethod, draw_subsets

__all__ = ["MMFormerMethod", "draw_subsets"]
