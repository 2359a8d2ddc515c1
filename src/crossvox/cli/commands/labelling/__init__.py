"""Commands that lead from a trained run to more labels."""
