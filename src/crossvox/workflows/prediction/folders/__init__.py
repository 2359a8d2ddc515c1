"""Scans in folders, any number of them, also as they arrive."""
