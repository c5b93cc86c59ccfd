"""The kinds of layer that the strict 7B pathway has: what the kernel's benchmarks measure on."""

import numpy as np
from jaxtyping import Bool

from flowjax.edges import Edge, Knockout, edge_table
from flowjax.layout import TokenLayout

LAYERS = 32


def strict_pathway() -> list[Knockout]:
    """The paper's 7B pathway (arXiv 2510.13251), `instruction` taken as part of the question.

    Layers that keep an edge, 0-based: cross-frame 5-14, video to question 5-19, question to last
    15-24; video reads video until 19, the question itself until 24.
    """
    every = set(range(LAYERS))
    cut = {
        "cross_frame": every - set(range(5, 15)),
        "video->last": every,
        "last->last": every,
        "video->video": every - set(range(20)),
    }
    for text in ("question", "instruction"):
        cut[f"video->{text}"] = every - set(range(5, 20))
        cut[f"{text}->last"] = every - set(range(15, 25))
        for other in ("question", "instruction"):
            cut[f"{other}->{text}"] = every - set(range(25))
    return [Knockout((Edge.parse(edge),), tuple(sorted(layers))) for edge, layers in cut.items()]


def layer_kinds(layout: TokenLayout) -> list[tuple[list[int], Bool[np.ndarray, "1 g g"]]]:
    """The tables that the pathway has, each with its layers."""
    kinds: dict[bytes, tuple[list[int], np.ndarray]] = {}
    tables = edge_table(layout, strict_pathway(), layers=LAYERS, heads=1)
    for layer, table in enumerate(tables):
        kinds.setdefault(table.tobytes(), ([], table))[0].append(layer)
    return list(kinds.values())
