"""flowjax: where in a VideoLLM does the answer come from?

    import flowjax as fj

    model = fj.load("models/llava-7b")
    asked = fj.ask(model, "clip.mp4", "Which way does it move?", ["Left.", "Right."], answer="B")
    fj.knockout(asked, "video->last", layers=range(3, 6)).change
    fj.sweep(asked, ["cross-frame", "video->question"]).plot()

Names are imported when first used, so that `import flowjax` and `flowjax --help` stay quick.
"""

import importlib
from typing import TYPE_CHECKING

from flowjax.version import __version__

if TYPE_CHECKING:
    from flowjax.api.forward import forward, knockout
    from flowjax.api.readings import attention, generate, logit_lens
    from flowjax.api.sweep import sweep
    from flowjax.asked.asked import Asked, ask
    from flowjax.data.video_options import VideoOptions
    from flowjax.edges import Edge, Knockout, edge_mask
    from flowjax.errors import FlowjaxError
    from flowjax.layer_windows import windows
    from flowjax.layout import TokenLayout
    from flowjax.masks import DenseMask, EdgeMask
    from flowjax.models.checkpoint import load_model as load
    from flowjax.models.decoder import Keep
    from flowjax.patches import Patch
    from flowjax.pathway import Pathway

__all__ = [
    "Asked",
    "DenseMask",
    "Edge",
    "EdgeMask",
    "FlowjaxError",
    "Keep",
    "Knockout",
    "Patch",
    "Pathway",
    "TokenLayout",
    "VideoOptions",
    "__version__",
    "ask",
    "attention",
    "edge_mask",
    "forward",
    "generate",
    "knockout",
    "load",
    "logit_lens",
    "sweep",
    "windows",
]

_HOMES = {
    **dict.fromkeys(("Asked", "ask"), "flowjax.asked.asked"),
    **dict.fromkeys(("forward", "knockout"), "flowjax.api.forward"),
    **dict.fromkeys(("attention", "generate", "logit_lens"), "flowjax.api.readings"),
    **dict.fromkeys(("DenseMask", "EdgeMask"), "flowjax.masks"),
    **dict.fromkeys(("Edge", "Knockout", "edge_mask"), "flowjax.edges"),
    "FlowjaxError": "flowjax.errors",
    "Keep": "flowjax.models.decoder",
    "Patch": "flowjax.patches",
    "Pathway": "flowjax.pathway",
    "TokenLayout": "flowjax.layout",
    "VideoOptions": "flowjax.data.video_options",
    "load": "flowjax.models.checkpoint",
    "sweep": "flowjax.api.sweep",
    "windows": "flowjax.layer_windows",
}
_THERE = {"load": "load_model"}
"""What a name is called in its module, where that is another."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'flowjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), _THERE.get(name, name))


def __dir__() -> list[str]:
    return list(__all__)
