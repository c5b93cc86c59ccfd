"""Reading intermediate hidden states through the vocabulary."""
