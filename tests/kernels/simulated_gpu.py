"""JAX's simulator of GPUs, compiling a kernel's program once and not in every thread."""

import threading

import jax
import pytest
from jax._src.pallas.mosaic.interpret import thread_map


@pytest.fixture(autouse=True)
def compile_once(monkeypatch):
    """The simulator compiles its program anew in each thread of each block, which takes minutes."""
    compiled, lock = {}, threading.Lock()

    def run(jaxpr, consts, *args):
        with lock:
            if id(jaxpr) not in compiled:

                def program(consts, *args):
                    return jax.core.eval_jaxpr(jaxpr, consts, *args)

                # The jaxpr is kept too, so that its id stays its own.
                compiled[id(jaxpr)] = jaxpr, jax.jit(program).lower(consts, *args).compile()
        compiled[id(jaxpr)][1](consts, *args)

    monkeypatch.setattr(thread_map, "_run_jaxpr", run)
