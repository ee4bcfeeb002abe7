"""Annotation files: their formats, what is wrong in them, and the splits made of them."""
