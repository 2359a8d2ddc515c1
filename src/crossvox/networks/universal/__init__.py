"""The two networks of the CLIP-Driven Universal Model (Liu et al., ICCV 2023)."""
