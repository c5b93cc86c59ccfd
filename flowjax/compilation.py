"""What concerns compiled programs: their cache, their memory, their text."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
from jax.stages import Compiled

from flowjax.cache import cache_folder


def use_persistent_cache() -> None:
    """Keep compiled programs between runs, unless the user has set JAX's own option.

    They go to `$XDG_CACHE_HOME/flowjax/jax`, by default under `~/.cache`, and nowhere if that
    cannot be written to. A program that cannot be kept or read is compiled, and nothing is said.
    """
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache")
    folder = cache_folder("jax")
    if jax.config.values["jax_compilation_cache_dir"] is not None or folder is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@contextlib.contextmanager
def count_compilations() -> Iterator[list[str]]:
    """A list that grows by one for each program that is compiled, or read from a cache, within."""
    made: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            made.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield made
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def memory_of(compiled: Compiled) -> Any:  # noqa: ANN401 - jaxlib names the type differently
    """The compiler's memory analysis of a program, with sizes such as `temp_size_in_bytes`.

    Raises:
        RuntimeError: this backend gives none.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise RuntimeError(f"{jax.default_backend()} does not analyse the memory of programs")
    return analysis


def text_of(compiled: Compiled) -> str:
    """The program that the compiler made, as text (see `flowjax.hlo`).

    Raises:
        RuntimeError: this backend gives none.
    """
    text = compiled.as_text()
    if text is None:
        raise RuntimeError(f"{jax.default_backend()} does not show its programs")
    return text
