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
    ) -> Bool[Array, "heads q k"]:
        """Whether target position may read source position, causality included.

        A source position past the end is read by nobody: it marks a row that is not there.
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
    ) -> Bool[Array, "heads q k"]:
        """Edges that both allow."""
        return self.first.rows(targets, sources) & self.second.rows(targets, sources)


def both(first: Mask, second: Mask) -> Mask:
    """The edges that two masks of the same positions allow; one table where their groups agree."""
    if isinstance(first, EdgeMask) and isinstance(second, EdgeMask) and first.group is second.group:
        return EdgeMask(first.group, first.allowed & second.allowed)
    if isinstance(first, DenseMask) and isinstance(second, DenseMask):
        return DenseMask(first.allowed & second.allowed)
    return BothMasks(first, second)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EdgeGates:
    """How much of each of some edge sets there is: 1 leaves it as it is, 0 cuts it, in a line.

    At a gate g the attention of a row is `w + (1 - g) (w_cut - w)`: of the weights w as they are
    and those of the knockout, w_cut, which are w without the cut sources, normalised again. So the
    derivative by a gate is the knockout's own change of the attention, however nonlinear the
    softmax is. Of several gates the changes add up.

    group: int32 [n], the group index of each position.
    cut: bool [e, g, g], what each edge set cuts, target group x source group; they may overlap.
    allowed: float32 [..., e], gates; leading axes as in `EdgeMask`.
    """

    group: Int[Array, " n"]
    cut: Bool[Array, "e g g"]
    allowed: Float[Array, "*axes e"]

    def at(self, layer: int | Int[Array, ""]) -> "EdgeGates":
        """The mask of one layer: float32 [heads or 1, e]."""
        return EdgeGates(self.group, self.cut, self.allowed[layer])

    def rows(self, targets: Int[Array, " q"], sources: Int[Array, " k"]) -> Bool[Array, "1 q k"]:
        """What causality allows."""
        return (targets[:, None] >= sources[None, :])[None]

    def gated(
        self,
        weights: Float[Array, "heads q k"],
        targets: Int[Array, " q"],
        sources: Int[Array, " k"],
    ) -> Float[Array, "heads q k"]:
        """Attention weights as the gates change them."""
        groups = self.cut.shape[-1]
        member = jax.nn.one_hot(jnp.take(self.group, sources, mode="clip"), groups)
        # Of every row: which source groups each edge set cuts, and how much it reads of the others.
        cut = jnp.take(self.cut, jnp.take(self.group, targets, mode="clip"), axis=1)
        cut = cut.astype(weights.dtype)
        exact = jax.lax.Precision.HIGHEST
        read = jnp.einsum("hqk,kg->hqg", weights, member, precision=exact)
        left = jnp.einsum("hqg,eqg->hqe", read, 1 - cut, precision=exact)
        # A row whose all is cut reads nothing.
        again = jnp.where(left > NOTHING_LEFT, 1 / jnp.maximum(left, NOTHING_LEFT), 0.0)
        closed = 1 - self.allowed[:, None, :]
        # Apart, for `again` may be so large that nothing is left of a difference with it.
        kept = jnp.einsum("hqe,eqg->hqg", closed * (again - 1), 1 - cut, precision=exact)
        lost = jnp.einsum("hqe,eqg->hqg", closed, cut, precision=exact)
        change = jnp.einsum("hqg,kg->hqk", kept - lost, member, precision=exact)
        return weights * (1 + change)


NOTHING_LEFT = 1e-12
"""A row with less than this share of its attention left reads nothing."""


def causal_mask(layers: int, group: Int[Array, " n"]) -> EdgeMask:
    """No edge removed: bool [layers, 1, 1, 1], every position in group 0."""
    return EdgeMask(jnp.zeros_like(group), jnp.ones((layers, 1, 1, 1), bool))
