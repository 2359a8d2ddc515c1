"""The runs of a benchmark's grid, and running them."""
