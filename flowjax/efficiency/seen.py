"""What the vision tower shows of video tokens before the decoder reads them."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowjax.models.projector import pooling_matrix
from flowjax.precision import PRECISION


class Seen(NamedTuple):
    """Of every place of every frame.

    attention: float32 [frames, t], how much the tower's class token attends to its patches, in the
        layer whose output are the features; of a tower without one, how much all patches do on
        average. Over a frame, with what the class token keeps for itself, it sums to 1.
    key: float32 [frames, t, d], the mean of its patches' keys there, all heads side by side.
    """

    attention: Float[Array, "frames t"]
    key: Float[Array, "frames t d"]


@runtime_checkable
class Readable(Protocol):
    """A vision tower whose last attention can be read: square frames that do not see each other."""

    def last_reads(
        self, pixel_values: Float[Array, "frames channels size size"]
    ) -> tuple[Float[Array, "frames n width"], Float[Array, "frames n width"]]:
        """Queries and keys of the last layer, all heads side by side; a class token is first."""
        ...


def see(
    tower: Readable,
    pixel_values: Float[Array, "frames channels size size"],
    places: tuple[int, int],
) -> Seen:
    """Read a vision tower's last attention, over its whole width as in the code of PruMerge.

    A place whose token is pooled from several patches has the sum of their attention.

    Args:
        tower: the model's.
        pixel_values: of the frames.
        places: rows and columns of a frame's video tokens.
    """
    query, key = (part.astype(jnp.float32) for part in tower.last_reads(pixel_values))
    frames, tokens, width = query.shape
    side = int(tokens**0.5)
    patches = key[:, tokens - side**2 :]
    targets = query[:, :1] if tokens > side**2 else query
    scores = jnp.einsum("fqd,fkd->fqk", targets, key, precision=PRECISION) * width**-0.5
    attention = jax.nn.softmax(scores).mean(axis=1)[:, tokens - side**2 :]
    pooled = (
        _pooled(part.reshape(frames, side, side, -1), places) for part in (attention, patches)
    )
    share, mean = (part.reshape(frames, places[0] * places[1], -1) for part in pooled)
    return Seen(share[..., 0] * (side**2 / (places[0] * places[1])), mean)


def _pooled(
    grid: Float[Array, "frames side side d"], places: tuple[int, int]
) -> Float[Array, "frames rows columns d"]:
    """Means over the patches of every place."""
    rows, columns = (jnp.asarray(pooling_matrix(grid.shape[1], bins)) for bins in places)
    return jnp.einsum("ra,cb,fabd->frcd", rows, columns, grid, precision=PRECISION)
