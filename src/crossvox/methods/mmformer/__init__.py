"""mmFormer (Zhang et al., MICCAI 2022): architecture in `network.py`, losses in `method.py`."""

from crossvox.methods.mmformer.method import MMFormer

__all__ = ["MMFormer"]
