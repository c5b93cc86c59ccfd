"""Masks: which target (query) position may read which source (key) position.

Edges are cut between token groups, so a mask is small: the group of every position and one table
`allowed[target group, source group]`. Causality is implied by position and never stored::

                 source   system  video  question  last
    target system            1      1       1       1
           video             1      1       1       1
           question          1      0       1       1      <- video -> question is cut
           last              1      1       1       1

Leading axes of the table are layers and heads (1 where all heads agree); `vmap` adds windows.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

NOBODY = np.iinfo(np.int32).max
"""Position of a source row that is not there: after every target."""


@runtime_checkable
class Mask(Protocol):
    """What attention needs of a mask: its table with leading axes, and the rows of one layer."""

    @property
    def allowed(self) -> Bool[Array, "..."] | Float[Array, "..."]:
        """The table; its first axis is layers while it covers a whole decoder."""
        ...

    def at(self, layer: int | Int[Array, ""]) -> "Mask":
        """The mask of one layer."""
        ...

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"] | Float[Array, "heads q k"]:
        """Whether target position may read source position, causality included.

        Numbers instead of booleans say how much of each edge there is (see `GatedMask`). A source
        position past the end is read by nobody: it marks a row that is not there.
        """
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EdgeMask:
    """Edges between groups.

    group: int32 [n], the group index of each position.
    allowed: bool [..., g, g], target group x source group. For a decoder the leading axes are
        [layers, heads or 1]; `at` takes the layer axis away.
    """

    group: Int[Array, " n"]
    allowed: Bool[Array, "*axes g g"]

    def __and__(self, other: "Mask") -> "Mask":
        """The edges that both allow."""
        return both(self, other)

    def at(self, layer: int | Int[Array, ""]) -> "EdgeMask":
        """The mask of one layer: bool [heads or 1, g, g]."""
        return EdgeMask(self.group, self.allowed[layer])

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"]:
        """Allowed edges into `targets` from `sources` (absolute positions), causality included."""
        target_group = jnp.take(self.group, targets, mode="clip")
        source_group = jnp.take(self.group, sources, mode="clip")
        by_target = jnp.take(self.allowed, target_group, axis=-2)
        table = jnp.take(by_target, source_group, axis=-1)
        return table & (targets[:, None] >= sources[None, :])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DenseMask:
    """Edges between positions, for masks that groups cannot express.

    allowed: bool [..., n, n], target x source; leading axes as in `EdgeMask`. Entries above the
        diagonal are ignored: causality always holds.
    """

    allowed: Bool[Array, "*axes n n"]

    def __and__(self, other: "Mask") -> "Mask":
        """The edges that both allow."""
        return both(self, other)

    def at(self, layer: int | Int[Array, ""]) -> "DenseMask":
        """The mask of one layer: bool [heads or 1, n, n]."""
        return DenseMask(self.allowed[layer])

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"]:
        """Allowed edges into `targets` from `sources` (absolute positions), causality included."""
        table = self.allowed.at[..., targets[:, None], sources[None, :]].get(mode="clip")
        return table & (targets[:, None] >= sources[None, :])


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BothMasks:
    """The edges that two masks allow, of one of which `allowed` may be of another form."""

    first: Mask
    second: Mask

    @property
    def allowed(self) -> Bool[Array, "..."] | Float[Array, "..."]:
        """The first mask's table; both have the same layers."""
        return self.first.allowed

    def __and__(self, other: "Mask") -> "Mask":
        """The edges that all allow."""
        return BothMasks(self, other)

    def at(self, layer: int | Int[Array, ""]) -> "BothMasks":
        """The mask of one layer."""
        return BothMasks(self.first.at(layer), self.second.at(layer))

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Bool[Array, "heads q k"] | Float[Array, "heads q k"]:
        """Edges that both allow, or the product of their gates."""
        first, second = self.first.rows(targets, sources), self.second.rows(targets, sources)
        if first.dtype == second.dtype == bool:
            return first & second
        return first * second


def both(first: Mask, second: Mask) -> Mask:
    """The edges that two masks of the same positions allow; one table where their groups agree."""
    if isinstance(first, EdgeMask) and isinstance(second, EdgeMask) and first.group is second.group:
        return EdgeMask(first.group, first.allowed & second.allowed)
    if isinstance(first, DenseMask) and isinstance(second, DenseMask):
        return DenseMask(first.allowed & second.allowed)
    return BothMasks(first, second)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class GatedMask:
    """Edges between groups, each as strong as its gate: what a knockout is the end of.

    A gate multiplies the exponential of its edges' scores before they are normalised. At 1 the edge
    is as it was, at 0 it is cut exactly as `EdgeMask` cuts it, and between them attention is a
    smooth function of the gate.

    group: int32 [n], the group index of each position.
    allowed: float32 [..., g, g], gates of at least 0, target group x source group; leading axes
        as in `EdgeMask`.
    """

    group: Int[Array, " n"]
    allowed: Float[Array, "*axes g g"]

    def at(self, layer: int | Int[Array, ""]) -> "GatedMask":
        """The mask of one layer: float32 [heads or 1, g, g]."""
        return GatedMask(self.group, self.allowed[layer])

    def rows(
        self, targets: Int[Array, " q"], sources: Int[Array, " k"]
    ) -> Float[Array, "heads q k"]:
        """Gates of the edges into `targets` from `sources`; 0 where causality forbids them."""

        def member(positions: Array) -> Array:
            group = jnp.take(self.group, positions, mode="clip")
            return jax.nn.one_hot(group, self.allowed.shape[-1])

        # As products, because their gradient is products too, and that of a gather a slow scatter.
        gates = jnp.einsum(
            "qt,hts,ks->hqk",
            member(targets),
            self.allowed,
            member(sources),
            precision=jax.lax.Precision.HIGHEST,
        )
        return jnp.where(targets[:, None] >= sources[None, :], gates, 0.0)


def causal_mask(layers: int, group: Int[Array, " n"]) -> EdgeMask:
    """No edge removed: bool [layers, 1, 1, 1], every position in group 0."""
    return EdgeMask(jnp.zeros_like(group), jnp.ones((layers, 1, 1, 1), bool))
