"""Scores of a run during training, splits, and which scans may give scores."""
