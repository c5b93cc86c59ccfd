"""Windows of layers and sets of edges, as the paper and its reference code define them."""

from flowjax.edges import CROSS_FRAME
from flowjax.errors import FlowjaxError

STYLES = ("center", "inverse", "top_down", "bottom_up")


def window_layers(centre: int, width: int, style: str, layers: int) -> tuple[int, ...]:
    """The layers of one window (0-based), as the reference defines them.

    `center` is `[centre - width // 2, centre + ceil(width / 2))` clipped to the model, so an even
    width reaches one layer further to the left; `inverse` is its complement; `top_down` is
    `centre` and all later layers; `bottom_up` is `centre` and all earlier ones (the last two do
    not read `width`).

    Raises:
        FlowjaxError: a centre outside the model, a width below 1 or above the model's depth
            (where it is read), or an unknown style.
    """
    if style not in STYLES:
        raise FlowjaxError(f"window style {style!r}: choose one of {', '.join(STYLES)}")
    if not 0 <= centre < layers:
        raise FlowjaxError(f"window centre {centre}: the model's layers are 0 to {layers - 1}")
    if width < 1:
        raise FlowjaxError(f"window width {width}: give at least 1 layer")
    if style == "top_down":
        return tuple(range(centre, layers))
    if style == "bottom_up":
        return tuple(range(centre + 1))
    if width > layers:
        raise FlowjaxError(f"window width {width}: the model has only {layers} layers")
    inside = range(max(0, centre - width // 2), min(layers, centre + (width + 1) // 2))
    if style == "center":
        return tuple(inside)
    return tuple(layer for layer in range(layers) if layer not in inside)


def windows(width: int, style: str, layers: int) -> tuple[tuple[int, ...], ...]:
    """One window per centre: the layers of each (see `window_layers`)."""
    return tuple(window_layers(centre, width, style, layers) for centre in range(layers))


EDGE_SETS: dict[str, tuple[str, ...]] = {
    "cross-frame": (CROSS_FRAME,),
    "vql-to-ql": ("video->question", "video->last", "question->last", "last->last"),
    "question-and-options-to-last": (
        "question_stem->last",
        "true_option->last",
        "false_options->last",
    ),
    "vq-to-true-opt": (
        "video->question_stem",
        "question_stem->true_option",
        "video->true_option",
    ),
}
"""The paper's edge sets, by the names of its reference code: the edges cut one at a time."""


def edges_of(name: str) -> tuple[str, ...]:
    """The edges of one of the paper's edge sets.

    Raises:
        FlowjaxError: no such edge set.
    """
    if name not in EDGE_SETS:
        raise FlowjaxError(f"edge set {name!r}: choose from {', '.join(EDGE_SETS)}")
    return EDGE_SETS[name]
