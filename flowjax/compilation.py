"""What concerns compiled programs: their cache, their memory."""

import os
from pathlib import Path
from typing import Any

import jax
from jax.stages import Compiled


def use_persistent_cache() -> None:
    """Keep compiled programs between runs, unless the user has set JAX's own option.

    They go to `$XDG_CACHE_HOME/flowjax/jax`, by default under `~/.cache`.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(home / "flowjax" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def memory_of(compiled: Compiled) -> Any:  # noqa: ANN401 - jaxlib names the type differently
    """The compiler's memory analysis of a program, with sizes such as `temp_size_in_bytes`.

    Raises:
        RuntimeError: this backend gives none.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise RuntimeError(f"{jax.default_backend()} does not analyse the memory of programs")
    return analysis
