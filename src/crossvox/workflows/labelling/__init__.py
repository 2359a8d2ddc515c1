"""From a trained run to more labels: which scans, drafts of them, and corrected ones back."""
