"""UMML (Zhu et al., MICCAI 2021): its CycleGAN in `translation.py`, its losses in `method.py`."""

from crossvox.methods.umml.method import UMML

__all__ = ["UMML"]
