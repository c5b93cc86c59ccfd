"""Kernels: one folder each, an implementation in plain XLA beside those for accelerators."""
