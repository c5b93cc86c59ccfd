"""Processes of their own: what JAX and libtpu read once, when they start."""

import os
import sys


def environment(devices: int = 1) -> dict[str, str]:
    """This process's environment, with so many devices of its CPU and all that it can import."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join(filter(None, sys.path))
    return os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
