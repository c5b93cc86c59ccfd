"""One run on several hosts: `jax.distributed`, and what its processes have to agree on."""
