"""flowjax: where in a VideoLLM does the answer come from?

Names are imported when first used, so that `import flowjax` and `flowjax --help` stay quick.
"""

import importlib
from typing import TYPE_CHECKING

from flowjax.version import __version__

if TYPE_CHECKING:
    from flowjax.edges import DenseMask, Edge, EdgeMask, Knockout, edge_mask, windows
    from flowjax.errors import FlowjaxError
    from flowjax.layout import TokenLayout
    from flowjax.models.checkpoint import load_model
    from flowjax.sweeps.protocol import protocol

__all__ = [
    "DenseMask",
    "Edge",
    "EdgeMask",
    "FlowjaxError",
    "Knockout",
    "TokenLayout",
    "__version__",
    "edge_mask",
    "load_model",
    "protocol",
    "windows",
]

_HOMES = {
    **dict.fromkeys(
        ("DenseMask", "Edge", "EdgeMask", "Knockout", "edge_mask", "windows"), "flowjax.edges"
    ),
    "FlowjaxError": "flowjax.errors",
    "TokenLayout": "flowjax.layout",
    "load_model": "flowjax.models.checkpoint",
    "protocol": "flowjax.sweeps.protocol",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'flowjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
