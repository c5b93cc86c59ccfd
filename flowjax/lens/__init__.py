"""Reading what a model's layers hold: hidden states through the vocabulary, and attention."""
