"""Metrics on the scans' own grids, and the tables made from them."""
