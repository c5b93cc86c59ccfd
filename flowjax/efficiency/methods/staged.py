"""Staged cross-modal attention with a temporal exit: text reads video in some layers, then it goes.

Shi et al. 2026, *Causality Matters: How Temporal Information Emerges in Video Language Models*
(AAAI 2026, arXiv 2508.11576). What is publicly said of it, in its abstract: temporal cues are made
between frames, gathered in the last frame, then read by the question; so cross-modal attention is
staged, and a temporal exit truncates tokens early. Here text reads no video before the stage
begins, and no video token is computed or kept from its end on.

Not known to us, and so set here: the layers (the stage is the second half of the layers up to the
exit, and the exit is varied), and whether the exit takes all frames or leaves the last one (here:
all).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowjax.edges import Edge, Knockout
from flowjax.efficiency.cut import apply_knockouts
from flowjax.efficiency.method import Applied, Method, Prompt, Setting, Subject
from flowjax.layout import TokenLayout


@dataclass(frozen=True)
class Staged:
    """Text reads video in the layers from `start` up to `end`, 0-based, without the latter."""

    start: int
    end: int

    @property
    def label(self) -> str:
        """The stage, counted from 1."""
        return f"text reads video in layers {self.start + 1}-{self.end}"

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        layers = prompt.decoder.config.layers
        closed = [layer for layer in range(layers) if not self.start <= layer < self.end]
        edges = [Edge("video", cell) for cell in _after_video(prompt.layout)]
        return apply_knockouts(prompt, [Knockout(edges, closed)] if closed else [])


def _after_video(layout: TokenLayout) -> list[str]:
    """Cells of text with a position after the first of the video."""
    video = layout.positions("video")
    after = np.unique(layout.cell[video[0] :])
    return [layout.cells[cell] for cell in after if cell not in layout.cell[video]]


def _settings(subject: Subject) -> Sequence[Setting]:
    """Exits from seven eighths of the layers down to a quarter."""
    exits = dict.fromkeys(subject.layers * eighths // 8 for eighths in (7, 6, 5, 4, 3, 2))
    return [Staged(end // 2, end) for end in exits if 0 < end < subject.layers]


METHOD = Method("staged, temporal exit", "Shi et al. 2026, arXiv 2508.11576", _settings)
