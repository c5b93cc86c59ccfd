"""Runs: one loop over samples, one store of rows."""
