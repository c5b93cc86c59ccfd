"""Every attention edge at once: first-order effects of cutting it, from one gradient."""
