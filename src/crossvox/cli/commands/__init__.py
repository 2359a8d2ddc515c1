"""The commands, one file each, grouped as `crossvox --help` shows them."""
