"""Flax NNX modules and everything that reads, builds or loads them."""
