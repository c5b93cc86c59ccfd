"""Statistics and figures from stored results; no model is needed."""
