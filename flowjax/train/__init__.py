"""Training with optax: packed examples, a step, a loop that resumes exactly."""
