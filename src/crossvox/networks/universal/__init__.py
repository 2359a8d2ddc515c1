"""The networks of the CLIP-Driven Universal Model."""
