"""Random edges, the paper's control: as many are cut in every layer, and no row dies of it.

Every row still reaches the answer, so nothing is saved: a mask is all that can be made of them.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from flowjax.edges import causal_edges
from flowjax.efficiency.cut import compile_kept, cost_of, prefill_cut
from flowjax.efficiency.method import Applied, Masked, Method, Prompt, Setting, Subject
from flowjax.padding import pad_prompt, padded_dense
from flowjax.pathway import random_edges


@dataclass(frozen=True)
class RandomEdges:
    """Keep a share of the causal edges after the text before the video; others in every sample."""

    share: float

    @property
    def label(self) -> str:
        """The share."""
        return f"{self.share:g} of edges from the video on"

    def apply(self, prompt: Prompt) -> Applied:
        """See `Setting.apply`."""
        config, layout = prompt.decoder.config, prompt.layout
        digest = hashlib.sha256(prompt.name.encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        first = int(prompt.video[0])
        cut = (1 - self.share) * causal_edges(0, layout.length - first)
        share = 1 - cut / causal_edges(0, layout.length)
        mask = random_edges(layout, share, seed=seed, layers=config.layers).dense()
        whole = compile_kept(layout, (), config)
        stages = tuple(dataclasses.replace(stage, blocks=None) for stage in whole.stages)
        compiled = dataclasses.replace(whole, mask=mask, stages=stages)
        return Applied(
            prefill_cut,
            (prompt.decoder, prompt.embedded, compiled),
            lambda: Masked(pad_prompt(prompt.embedded), padded_dense(mask)),
            lambda: cost_of(layout, whole, prompt),
            lambda _: compiled,
        )


def _settings(subject: Subject) -> Sequence[Setting]:
    del subject
    return [RandomEdges(share) for share in (0.75, 0.5)]


METHOD = Method("random edges", "Map the Flow, ICLR 2026, arXiv 2510.13251, section 5", _settings)
