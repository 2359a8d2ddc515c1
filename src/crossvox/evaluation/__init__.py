"""Scores in native space, and the tables made from them."""
