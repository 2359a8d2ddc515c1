"""Grids of runs that compare methods, with their tables and figures."""
