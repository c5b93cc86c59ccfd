"""Which of its backends a command lets JAX try.

Where libtpu is installed, JAX starts it even on a machine without a TPU, and libtpu then prints
errors of its own. `jax[tpu]` and the test extras install it anywhere.
"""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flowjax.errors import FlowjaxError

GOOGLE = "0x1ae0"
"""The PCI vendor of TPUs, and of virtual disks and network cards."""

SET_BY_IMPORT = {"TPU_SKIP_MDS_QUERY", "TPU_LIBRARY_PATH"}
"""What importing `jax` and `libtpu` sets where there is no TPU."""

DISK, NETWORK = "01", "02"
"""PCI classes."""


def skip_absent_tpu() -> None:
    """Set `JAX_PLATFORMS` for this process and its children if `without_tpu` has something to say.

    For commands. A program that imports flowjax as a library decides for itself.
    """
    platforms = without_tpu(os.environ)
    if platforms is not None:
        os.environ["JAX_PLATFORMS"] = platforms
        if jax := sys.modules.get("jax"):
            jax.config.update("jax_platforms", platforms)


def check_backend() -> None:
    """Start JAX.

    Raises:
        FlowjaxError: it cannot, with JAX's own reason.
    """
    import jax  # noqa: PLC0415 - `skip_absent_tpu` comes before it

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without a word
        chosen = os.environ.get("JAX_PLATFORMS")
        said = f" with JAX_PLATFORMS={chosen}" if chosen else ""
        reason = str(error) or "no such backend is installed"
        raise FlowjaxError(f"JAX cannot start{said}: {reason}") from error


def without_tpu(environ: Mapping[str, str]) -> str | None:
    """The platforms to try where libtpu is installed but no TPU is; None to leave it to JAX.

    It is left to JAX as well where the user has set anything about it, and where a plugin other
    than CUDA's is installed, since naming platforms makes JAX insist on them.
    """
    chosen = environ.keys() - SET_BY_IMPORT
    if any(name.startswith(("JAX_PLATFORM", "JAX_FORCE_TPU", "TPU_")) for name in chosen):
        return None
    if importlib.util.find_spec("libtpu") is None or tpus():
        return None
    names = plugins()
    if not all(name.startswith("xla_cuda") for name in names):
        return None
    return "cuda,cpu" if names and Path("/dev/nvidiactl").exists() else "cpu"


def tpus(bus: Path = Path("/sys/bus/pci/devices")) -> int:
    """Devices of Google's on the PCI bus that are neither disk nor network card."""
    return sum(
        (device / "vendor").read_text().strip() == GOOGLE
        and (device / "class").read_text()[2:4] not in (DISK, NETWORK)
        for device in bus.glob("*")
    )


def plugins() -> set[str]:
    """Installed backends: modules of the namespace package `jax_plugins`, and entry points."""
    space = importlib.util.find_spec("jax_plugins")
    folders = [] if space is None else list(space.submodule_search_locations or ())
    modules = {
        path.stem for folder in folders for path in Path(folder).iterdir() if path.stem[0] != "_"
    }
    points = importlib.metadata.entry_points(group="jax_plugins")
    return modules | {point.value.rpartition(".")[2] for point in points}
