"""Tensor tables of the model families, one module each, found by their names."""
