"""PNG figures of scans, label maps and scores."""
