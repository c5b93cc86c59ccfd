"""One short file per experiment of the paper; the command `flowjax` runs them."""
