"""From a configuration to a trained run, or one for each fold: weights, plan, batches, steps."""
