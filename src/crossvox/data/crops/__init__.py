"""From prepared arrays to the batches of a step."""
