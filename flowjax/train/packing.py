"""Several questions about one video in one sequence, none of which sees another.

The video and the text before it are computed once; every question reads them and itself::

                       source   prefix  question 1  question 2  padding
    target prefix                  1        0           0          0
           question 1              1        1           0          0
           question 2              1        0           1          0

Every question has the rotary positions that it would have alone, so that training computes what
asking each question on its own computes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowjax.errors import FlowjaxError
from flowjax.masks import EdgeMask

Numbers = np.ndarray | jax.Array


class Segment(NamedTuple):
    """Text that goes on from the prefix, and what is learned of it.

    ids: int32 [n]. wanted: int32 [n], what is to be predicted from the tokens before each of them;
    where nothing else is asked for, the token itself. learned: [n], weight of that loss.
    position: int32 [axes, n], for rotary embedding; None goes on from the prefix.
    """

    ids: Int[np.ndarray, " n"]
    wanted: Int[np.ndarray, " n"]
    learned: Float[np.ndarray, " n"]
    position: Int[np.ndarray, "axes n"] | None = None


class Packed(NamedTuple):
    """One sequence, or a batch of them on a leading axis.

    ids: int32 [n]; at the positions of the video, anything. segment: int32 [n], 0 for the prefix,
    -1 for padding. position: int32 [axes, n], for rotary embedding. target: int32 [n], what each
    position is to predict. weight: float32 [n], of its loss.
    """

    ids: Int[Numbers, "*batch n"]
    segment: Int[Numbers, "*batch n"]
    position: Int[Numbers, "*batch axes n"]
    target: Int[Numbers, "*batch n"]
    weight: Float[Numbers, "*batch n"]


def pack(
    prefix: Int[np.ndarray, " p"],
    segments: Sequence[Segment],
    length: int,
    position: Int[np.ndarray, "axes p"] | None = None,
) -> Packed:
    """One sequence of `length` positions; segments that do not fit whole are left out.

    position: of the prefix, for rotary embedding; None for 0, 1, 2, ...

    The first token of a segment is predicted from the last one of the prefix, which may stand for
    one segment only; so a segment's first token must not be learned.

    Raises:
        FlowjaxError: the prefix leaves no room for any segment, or a first token is learned.
    """
    end = len(prefix)
    first = np.arange(end, dtype=np.int32)[None] if position is None else position
    ids, rotary = np.zeros(length, np.int32), np.zeros((len(first), length), np.int32)
    segment, target = np.full(length, -1, np.int32), np.zeros(length, np.int32)
    weight = np.zeros(length, np.float32)
    ids[:end], rotary[:, :end], segment[:end] = prefix, first, 0
    for index, (own, wanted, learned, after) in enumerate(segments, 1):
        start, stop = end, end + len(own)
        if learned[0]:
            raise FlowjaxError("the first token of a segment cannot be learned")
        if stop > length:
            continue
        ids[start:stop], segment[start:stop] = own, index
        rotary[:, start:stop] = len(prefix) + np.arange(len(own)) if after is None else after
        target[start : stop - 1], weight[start : stop - 1] = wanted[1:], learned[1:]
        end = stop
    if end == len(prefix):
        raise FlowjaxError(f"no segment fits beside a prefix of {end} in {length} positions")
    return Packed(ids, segment, rotary, target, weight)


class Hidden(NamedTuple):
    """Positions that segments cannot read in early layers.

    position: int32 [k], of the prefix. layers: the first so many. where: bool [], False hides
    nothing.
    """

    position: Int[Numbers, " k"]
    layers: int
    where: Bool[Numbers, ""]


def packed_mask(
    segment: Int[Array, " n"], segments: int, layers: int, hidden: Hidden | None = None
) -> EdgeMask:
    """The mask drawn above, for one sequence with up to `segments` segments.

    Args:
        segment: of every position, as in `Packed`.
        segments: the most that a sequence has.
        layers: of the decoder.
        hidden: what is cut besides.

    Returns:
        `allowed` bool [layers, 1, g, g]; padding is a group that reads itself.
    """
    table = np.eye(segments + 3, dtype=bool)
    padding, apart = segments + 1, segments + 2
    table[1:padding, [0, apart]] = True
    table[[0, apart, apart], [apart, 0, apart]] = True
    group = jnp.where(segment < 0, padding, segment)
    allowed: Bool[Array, "layers 1 g g"] = jnp.broadcast_to(
        jnp.asarray(table), (layers, 1, *table.shape)
    )
    if hidden is not None:
        group = group.at[hidden.position].set(apart)
        shown = allowed.at[: hidden.layers, :, 1:padding, apart].get() & ~hidden.where
        allowed = allowed.at[: hidden.layers, :, 1:padding, apart].set(shown)
    return EdgeMask(group, allowed)
