"""Commands that use a trained run."""
