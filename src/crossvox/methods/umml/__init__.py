"""UMML: co-training of two modalities through translation (Zhu et al., MICCAI 2021)."""

from crossvox.methods.umml.method import UMML

__all__ = ["UMML"]
