"""A question about a video as a model reads it: frames, prompt, layout, embeddings."""
