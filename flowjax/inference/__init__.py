"""Pruned inference: a pathway compiled to the rows, sources and cache entries it needs."""
