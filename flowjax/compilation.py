"""JAX's persistent compilation cache."""

import os
from pathlib import Path

import jax


def use_persistent_cache() -> None:
    """Keep compiled programs between runs, unless the user has set JAX's own option.

    They go to `$XDG_CACHE_HOME/flowjax/jax`, by default under `~/.cache`.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "flowjax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
