"""How exactly matrix products are computed."""

import jax

PRECISION = jax.lax.Precision.HIGHEST
"""float32 means float32 on every device; bfloat16 products are unaffected."""
