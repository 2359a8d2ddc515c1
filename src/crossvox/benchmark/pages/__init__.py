"""Numbers of a benchmark as tables, sentences, charts and pictures."""
