"""Published weights: which files there are, how they are read, and networks filled from them."""
