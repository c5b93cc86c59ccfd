"""Other orders of a video's frames, to see whether an answer depends on theirs."""

import hashlib

import numpy as np
from jaxtyping import Int

from flowjax.errors import FlowjaxError

AS_IS, SHUFFLED, REVERSED, REPEATED = "as-is", "shuffled", "reversed", "repeated"
ORDERS = (AS_IS, SHUFFLED, REVERSED, REPEATED)


def frame_order(order: str, frames: int, sample_id: str) -> Int[np.ndarray, " frames"]:
    """The indices of the frames that a model is shown, the same for the same sample.

    `shuffled` is a random order other than the true one (where there is another), `repeated` one
    random frame in every place.

    Raises:
        FlowjaxError: no such order.
    """
    if order not in ORDERS:
        raise FlowjaxError(f"frames {order!r}: choose one of {', '.join(ORDERS)}")
    ascending = np.arange(frames)
    rng = np.random.default_rng(list(hashlib.sha256(sample_id.encode()).digest()))
    if order == REVERSED:
        return ascending[::-1]
    if order == REPEATED:
        return np.full(frames, rng.integers(frames))
    if order == SHUFFLED and frames > 1:
        while ((shuffled := rng.permutation(frames)) == ascending).all():
            pass
        return shuffled
    return ascending
