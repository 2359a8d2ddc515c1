"""From files to batches: manifest, checks, geometry, preparation, sampling."""
