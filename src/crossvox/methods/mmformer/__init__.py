"""mmFormer (Zhang et al., MICCAI 2022): architecture in `network.py`, losses in `method.py`."""
