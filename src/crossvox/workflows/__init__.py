"""The work of the commands, as functions."""
