"""Which scans may score a run, and scores without any set aside for it."""
