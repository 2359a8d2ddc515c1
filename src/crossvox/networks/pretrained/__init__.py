"""Published weights: reading files, recognising models, filling networks."""
