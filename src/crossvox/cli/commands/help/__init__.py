"""Commands to begin with, and to look things up."""
