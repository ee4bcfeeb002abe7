"""Data sets, and the one data module that batches them."""
