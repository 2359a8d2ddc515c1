"""EFCD (Huang et al., MICCAI 2022): its layers in `evidential.py`, its losses in `method.py`."""
