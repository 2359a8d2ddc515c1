"""The training loop, its checkpoints, and the record of a run."""
