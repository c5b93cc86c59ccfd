"""Edits: other values in place of what a layer computes.

One layer, and where an edit reads and writes::

    x ----> norm -> attention -> [heads] -> output projection -> [attention] -> + x
      ----> norm -> MLP -------------------------------------> [mlp] ------> + x  -> [residual]

`heads` has one output per head, before the output projection mixes them; `attention` and `mlp` are
what is added to the residual stream, `residual` is the stream after the layer (and after what
`deepened` adds to it).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from jaxtyping import Array, Float, Int

from flowjax.errors import FlowjaxError

Site = Literal["residual", "attention", "heads", "mlp"]
"""Where in a layer: [n, width], but [n, heads, d] for `heads`."""

Change = Callable[[Int[Array, ""], Float[Array, "n ..."]], Float[Array, "n ..."]]
"""Layer (0-based, a traced int32) and the values there, to other values of the same shape."""

Sites = Callable[[Site, Float[Array, "n ..."]], Float[Array, "n ..."]]
"""What happens to the values of one layer at a site."""


class Edit(NamedTuple):
    """A change of the values at one site of every layer; `layer` tells which one it is."""

    change: Change
    at: Site = "residual"


def check_site(at: str) -> None:
    """Refuse a site that does not exist.

    Raises:
        FlowjaxError: no such site.
    """
    if at not in get_args(Site):
        raise FlowjaxError(f"at={at!r}: choose one of {', '.join(get_args(Site))}")


def unchanged(at: Site, value: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """No edit: the values as they are, at no cost."""
    del at
    return value


def sites(edit: Edit | None, layer: Int[Array, ""]) -> Sites:
    """What an edit does in one layer."""
    if edit is None:
        return unchanged

    def changed(at: Site, value: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        if at != edit.at:
            return value
        new = edit.change(layer, value)
        if new.shape != value.shape:
            raise FlowjaxError(
                f"the edit at {at!r} gives shape {list(new.shape)}; it must be that of the "
                f"values it is given, {list(value.shape)}"
            )
        return new.astype(value.dtype)

    return changed
