"""The command line: the program `crossvox` and its commands."""
