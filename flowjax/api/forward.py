"""One forward of an asked prompt: with edges cut, states kept, or values edited on the way."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.asked.asked import Asked
from flowjax.edges import Edge, Knockout, edge_mask
from flowjax.layout import TokenLayout
from flowjax.lens.read import read_logits
from flowjax.masks import Mask
from flowjax.models.attention import Sources
from flowjax.models.decoder import NOTHING, Decoder, Keep
from flowjax.models.edit import Change, Edit, Site, check_site
from flowjax.models.embedded import Embedded
from flowjax.padding import pad_prompt, padded_mask
from flowjax.patches import Patch, site_shape
from flowjax.sweeps.protocol import Protocol, SweepEdge


@dataclass(frozen=True, eq=False)
class Forward:
    """What one forward gave.

    logits: float32 [vocabulary], after the last position.
    hidden: [layers, n, width], the residual stream after every layer, which is what an edit of
        that layer is given; None where it was not kept.
    outputs: by site, what every layer computed there: [layers, n, width], or
        [layers, n, heads, d] at `heads`.
    attention: float32 [layers, heads, r, n], of the rows that were asked for; else None.
    sources: keys and values of every layer, where they were kept.
    """

    asked: Asked
    logits: Float[Array, " vocabulary"]
    hidden: Float[Array, "layers n width"] | None = None
    outputs: Mapping[str, Float[Array, "layers n ..."]] = field(default_factory=dict)
    attention: Float[Array, "layers heads r n"] | None = None
    sources: Sources | None = None

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each option's letter; see `Asked.probabilities`."""
        return self.asked.probabilities_in(np.asarray(self.logits))

    @property
    def answer(self) -> str:
        """The most probable next token."""
        return self.asked.text_of(int(self.logits.argmax()))

    def __repr__(self) -> str:
        """The answer, and what was kept."""
        kept = [
            name for name in ("hidden", "attention", "sources") if getattr(self, name) is not None
        ]
        kept += list(self.outputs)
        return f"Forward({said(self.answer, self.probabilities)}; kept: {', '.join(kept) or '-'})"


def forward(
    asked: Asked,
    *,
    keep: Keep = NOTHING,
    edit: Change | Patch | None = None,
    at: Site = "residual",
    knockouts: Iterable[Knockout] = (),
    mask: Mask | None = None,
) -> Forward:
    """Run the model once over an asked prompt.

    Compiled once for the prompt's length, and anew for every edit; differentiable with respect to
    what `edit` reads.

    Args:
        asked: what `ask` gave.
        keep: intermediates to return beside the logits, such as `Keep(hidden=True)`.
        edit: other values in place of what every layer computes at `at`: a function of the layer
            (0-based, a traced int32) and the values there, or a `Patch`. Choose layers with
            `jnp.where(layer == 12, ..., x)`.
        at: "residual" and what is added to it, "attention" and "mlp": values [n, width]; "heads",
            attention before the output projection: values [n, heads, d].
        knockouts: edges to cut.
        mask: edges per layer of your own, beside the knockouts.

    Raises:
        FlowjaxError: a group, layer or head that does not exist, or an edit of another shape.

    Examples:
        >>> clean = fj.forward(asked, keep=fj.Keep(hidden=True))
        >>> clean.hidden.shape[0] == asked.decoder.config.layers
        True
        >>> halved = fj.forward(asked, edit=lambda layer, x: x / 2, at="mlp")
        >>> abs(halved.logits - clean.logits).max() > 0
        Array(True, dtype=bool)
    """
    check_site(at)
    config, layout = asked.decoder.config, asked.layout
    cut = tuple(knockouts)
    if cut:
        layout = layout_for(cut, layout)
        own = edge_mask(layout, cut, layers=config.layers, heads=config.heads)
        mask = own if mask is None else own & mask
    change = None
    if isinstance(edit, Patch):
        arrays = edit.arrays(layout, config.layers, site_shape(config, edit.at))
        change = arrays.edit(jnp.arange(layout.length, dtype=jnp.int32))
    elif edit is not None:
        change = Edit(edit, at)

    rows, flags = keep.attention, keep._replace(attention=None)
    run = unedited
    if change is not None:
        # Compiled anew: the function may close over arrays that are being differentiated.
        run = jax.jit(partial(_run, change=change), static_argnames="keep")
    if mask is not None:
        mask = asked.decoder.blocked(mask)
    return Forward(asked, *run(asked.decoder, asked.embedded, mask, rows, keep=flags))


def _run(
    decoder: Decoder,
    prompt: Embedded,
    mask: Mask | None,
    rows: Int[Array, " r"] | None,
    *,
    keep: Keep,
    change: Edit | None = None,
) -> tuple:
    """What `Forward` holds beside the prompt; `rows`: those whose attention is kept."""
    keep = keep._replace(attention=rows)
    trace = decoder(prompt, mask, keep=keep, edit=change)
    hidden = trace.hidden
    if hidden is not None:
        hidden = jnp.concatenate([hidden[1:], trace.output[None]])
    logits = decoder.last_logits(trace.output, prompt)
    sources = trace.sources
    if sources is not None:
        key, value = (
            part.reshape(*part.shape[:2], -1, decoder.config.head_dim) for part in sources
        )
        position = jnp.broadcast_to(jnp.arange(key.shape[1], dtype=jnp.int32), key.shape[:2])
        sources = Sources(key, value, position)
    return logits, hidden, trace.outputs, trace.attention, sources


unedited = jax.jit(_run, static_argnames="keep")
"""Compiled once for every length of a prompt and every choice of what to keep."""


@dataclass(frozen=True, eq=False)
class Cut:
    """An asked prompt with edges cut.

    logits: float32 [vocabulary], after the last position.
    """

    asked: Asked
    knockout: Knockout
    logits: Float[np.ndarray, " vocabulary"]

    @cached_property
    def probability(self) -> float:
        """Probability of the answer that the model gives without the knockout, 0 to 1."""
        return self._probability(self.logits)

    @property
    def change(self) -> float:
        """Change of that probability in percent of what it is without the knockout."""
        base = self._probability(self.asked.logits)
        return (self.probability - base) * 100 / base

    @property
    def answer(self) -> str:
        """The most probable next token with the knockout."""
        return self.asked.text_of(int(self.logits.argmax()))

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability of each option's letter with the knockout; see `Asked.probabilities`."""
        return self.asked.probabilities_in(self.logits)

    def __repr__(self) -> str:
        """What was cut, and what it does."""
        layers = ",".join(map(str, self.knockout.layers))
        return (
            f"Cut({self.knockout.name} in layers {layers}: probability of "
            f"{self.asked.answer!r} {self.probability:.3f} ({self.change:+.1f}%))"
        )

    def _probability(self, logits: Float[np.ndarray, " vocabulary"]) -> float:
        shifted = np.exp(logits.astype(np.float64) - logits.max())
        return float(shifted[self.asked.logits.argmax()] / shifted.sum())


def knockout(
    asked: Asked,
    edges: str | Sequence[Edge],
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
) -> Cut:
    """Cut attention edges and ask again.

    Args:
        asked: what `ask` gave.
        edges: such as "video->last", several joined by "+", or "cross_frame".
        layers: 0-based; None for all.
        heads: 0-based; None for all.

    Raises:
        FlowjaxError: an edge, layer or head that does not exist.

    Examples:
        >>> cut = fj.knockout(asked, "video->last", layers=range(3, 6))
        >>> 0 <= cut.probability <= 1 and cut.change >= -100
        True
    """
    config = asked.decoder.config
    cut = Knockout(edges, range(config.layers) if layers is None else layers, heads)
    mask = padded_mask(layout_for([cut], asked.layout), [cut], config)
    logits = read_logits(asked.decoder, pad_prompt(asked.embedded), mask)
    return Cut(asked, cut, np.asarray(logits))


def layout_for(knockouts: Sequence[Knockout], layout: TokenLayout) -> TokenLayout:
    """The layout with a cell of its own for every token that the edges name."""
    lines = tuple(SweepEdge("", cut.edges) for cut in knockouts)
    return Protocol(lines).layout(layout)


def said(answer: str, probabilities: Mapping[str, float]) -> str:
    """An answer and probabilities in a few words."""
    shown = ", ".join(f"{name} {value:.3f}" for name, value in list(probabilities.items())[:5])
    return f"answers {answer!r}; {shown}"
