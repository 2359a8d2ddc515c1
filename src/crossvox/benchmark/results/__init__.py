"""The numbers of a benchmark: its CSV files, and means and comparisons of their lines."""
