"""Crops of prepared scans: where they lie, how they are augmented, and the batch of each step."""
