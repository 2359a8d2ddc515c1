"""From raw scans to arrays on one grid: fingerprint, plan, preprocessing, store."""
