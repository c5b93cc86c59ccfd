"""Ways to make a prefill cheaper, side by side: each compiled, counted, and checked by a mask."""
