"""Hugging Face checkpoints to Orbax."""
