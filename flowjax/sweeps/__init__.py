"""Knockout sweeps: what is asked, how it is computed, and where results are kept."""
