"""Patches: values put at some positions of some layers, said so that a sweep can plan them.

Activation patching puts there what another forward computed; ablation a mean or zero; steering adds
a direction; scaling a head multiplies what it gives. An edit from layer s on, at rows from r on,
changes what a knockout there can change, so the exact engine runs it at the same cost.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.edges import distinct
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.models.decoder import DecoderConfig
from flowjax.models.edit import Edit, Site, check_site

How = Literal["replace", "add", "scale"]
"""What the values do to those that are there."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PatchArrays:
    """A patch of one prompt, as a compiled function reads it.

    values: [layers, n, ...], [n, ...], or without these axes; the rest broadcasts to the site's.
    row: bool [n], which positions it reaches; a leading axis of windows in a batch.
    layer: bool [layers], which layers; likewise.
    """

    values: Float[Array, "..."]
    row: Bool[Array, "*windows n"]
    layer: Bool[Array, "*windows layers"]
    at: Site = dataclasses.field(metadata={"static": True})
    how: How = dataclasses.field(metadata={"static": True})

    def edit(self, position: Int[Array, " r"]) -> Edit:
        """The edit of a forward over the rows at these absolute positions."""

        def change(layer: Int[Array, ""], x: Float[Array, "r ..."]) -> Float[Array, "r ..."]:
            new, row_axes = self.values, x.ndim - 1
            if new.ndim == row_axes + 2:
                new = new[layer]
            if new.ndim == row_axes + 1:
                new = jnp.take(new, position, axis=0, mode="clip")
            if self.how == "add":
                new = x + new
            elif self.how == "scale":
                new = x * new
            reached = jnp.take(self.row, position, mode="clip") & self.layer[layer]
            return jnp.where(reached.reshape(-1, *[1] * row_axes), new, x)

        return Edit(change, self.at)


@dataclass(frozen=True, eq=False)
class Patch:
    """Values put at some positions, in some layers.

    values: [layers, n, width] as `Forward.hidden` has them, [n, width], [width] or a number; at
        `heads` with the two axes [heads, d] (or [heads, 1]) in place of `width`.
    rows: a token group, or positions.
    layers: 0-based; None for every layer, or, in a sweep, for every window.
    at: where in the layer; see `flowjax.models.edit`.
    how: "replace", "add" or "scale".

    Raises:
        FlowjaxError: a site or way that does not exist, no positions, or layers that are negative,
            given twice or none.
    """

    values: Float[Array, "..."] | Float[np.ndarray, "..."] | float
    rows: str | tuple[int, ...]
    layers: tuple[int, ...] | None = None
    at: Site = "residual"
    how: How = "replace"

    def __post_init__(self) -> None:
        """Check what can be checked without a prompt."""
        object.__setattr__(self, "values", jnp.asarray(self.values))
        check_site(self.at)
        if self.how not in get_args(How):
            raise FlowjaxError(f"how={self.how!r}: choose one of {', '.join(get_args(How))}")
        if not isinstance(self.rows, str):
            object.__setattr__(self, "rows", distinct("position", self.rows, self.name))
        if self.layers is not None:
            object.__setattr__(self, "layers", distinct("layer", self.layers, self.name))

    @property
    def name(self) -> str:
        """What is patched, as text."""
        if isinstance(self.rows, str):
            return f"{self.at}:{self.rows}"
        return f"{self.at}:{','.join(map(str, self.rows))}"

    def in_layers(self, layers: Iterable[int]) -> "Patch":
        """The same patch in other layers."""
        return dataclasses.replace(self, layers=tuple(layers))

    def positions(self, layout: TokenLayout) -> Int[np.ndarray, " p"]:
        """The positions it reaches, ascending.

        Raises:
            FlowjaxError: a group or position that the prompt does not have.
        """
        if isinstance(self.rows, str):
            return layout.positions(self.rows)
        if max(self.rows) >= layout.length:
            raise FlowjaxError(
                f"patch {self.name!r}: position {max(self.rows)} does not exist; the prompt's are "
                f"0 to {layout.length - 1}"
            )
        return np.array(sorted(self.rows))

    def arrays(self, layout: TokenLayout, layers: int, site: tuple[int, ...]) -> PatchArrays:
        """The patch of one prompt, checked against it.

        Args:
            layout: the prompt's token groups.
            layers: of the decoder.
            site: the shape of one row's values where the patch is.

        Raises:
            FlowjaxError: values of another shape, or a layer or position that does not exist.
        """
        values = jnp.asarray(self.values)
        whole = (layers, layout.length, *site)
        fits = values.ndim <= len(whole) and all(
            own == there or (own == 1 and axis > 1)
            for axis, own, there in zip(
                range(len(whole) - values.ndim, len(whole)),
                values.shape,
                whole[len(whole) - values.ndim :],
                strict=True,
            )
        )
        if not fits:
            raise FlowjaxError(
                f"patch {self.name!r}: values of shape {list(values.shape)} do not fit; this "
                f"prompt's are {list(whole)} (layers, positions, values), first axes may be left "
                "out"
            )
        chosen = range(layers) if self.layers is None else self.layers
        if max(chosen) >= layers:
            raise FlowjaxError(
                f"patch {self.name!r}: layer {max(chosen)} does not exist; the model's layers are "
                f"0 to {layers - 1}"
            )
        row, layer = np.zeros(layout.length, bool), np.zeros(layers, bool)
        row[self.positions(layout)] = True
        layer[list(chosen)] = True
        return PatchArrays(values, jnp.asarray(row), jnp.asarray(layer), self.at, self.how)


def site_shape(config: DecoderConfig, at: Site) -> tuple[int, ...]:
    """The shape of one row's values at a site."""
    return (config.heads, config.head_dim) if at == "heads" else (config.width,)
