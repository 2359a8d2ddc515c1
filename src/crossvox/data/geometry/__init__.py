"""Grids in world space, and resampling between them."""
