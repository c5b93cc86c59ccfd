"""Videos, frames and prompts."""
