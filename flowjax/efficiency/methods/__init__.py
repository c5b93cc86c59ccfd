"""One file for each method: its source, its settings, what it keeps."""
