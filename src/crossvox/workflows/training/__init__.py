"""From a configuration to a trained run: what it begins with, its plan, its batches, its steps."""
