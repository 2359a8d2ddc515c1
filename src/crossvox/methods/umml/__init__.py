"""UMML (Zhu et al., MICCAI 2021): its CycleGAN in `translation.py`, its losses in `method.py`."""
