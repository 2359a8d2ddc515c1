"""Scores of a run: during training, and by folds; and which scans may give them."""
