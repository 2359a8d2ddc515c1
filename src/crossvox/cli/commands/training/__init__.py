"""Commands that train, compare and measure methods."""
