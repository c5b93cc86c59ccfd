"""Greedy decoding by whole forwards: slow and plain, to compare other decoders with."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from flowjax.errors import FlowjaxError
from flowjax.models.embedded import Embedded
from flowjax.models.video_llm import VideoLLM


def greedy(model: VideoLLM, prompt: Embedded, steps: int) -> Int[np.ndarray, " steps"]:
    """The most probable token, `steps` times; it does not stop at an end token.

    Every step is a forward over the prompt and all tokens so far, padded on the right to the
    final length, so that one compiled shape serves all steps. Generated tokens have, on all axes,
    the rotary positions that follow the largest one of the prompt.

    Args:
        model: the model.
        prompt: without padding.
        steps: tokens to generate.

    Returns:
        int32 [steps], token ids.

    Raises:
        FlowjaxError: `steps` is less than 1.
    """
    if steps < 1:
        raise FlowjaxError(f"tokens to generate: {steps}; at least 1 is needed")
    # The last token is never read.
    more, rope = steps - 1, prompt.rope_position
    following = jnp.max(rope) + 1 + jnp.arange(more, dtype=rope.dtype)
    following = jnp.broadcast_to(following, (len(rope), more))
    longer = prompt.padded(len(prompt.x) + more)._replace(
        rope_position=jnp.concatenate([rope, following], axis=1)
    )
    tokens = []
    for _ in range(steps):
        longer, token = _step(model, longer)
        tokens.append(token)
    return np.array(tokens, np.int32)


@jax.jit
def _step(model: VideoLLM, prompt: Embedded) -> tuple[Embedded, Int[Array, ""]]:
    """The prompt longer by the token that follows it, and the token."""
    decoder, length = model.decoder, jnp.asarray(prompt.last + 1)
    token = jnp.argmax(decoder.last_logits(decoder(prompt).output, prompt))
    # Past the end, which only the last step reaches, nothing is written.
    added = decoder.embedding(token).astype(prompt.x.dtype)
    x = prompt.x.at[length].set(added, mode="drop")
    return prompt._replace(x=x, length=length + 1), token
