"""Kernels: one folder each, an XLA reference beside the implementations."""
