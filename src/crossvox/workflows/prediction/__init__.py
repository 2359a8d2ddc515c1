"""From trained runs and scans to label maps, files and scores."""
