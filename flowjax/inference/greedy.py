"""Greedy decoding by whole forwards: slow and plain, to compare other decoders with."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from flowjax.edges import causal_mask
from flowjax.errors import FlowjaxError
from flowjax.models.video_llm import VideoLLM


def greedy(
    model: VideoLLM,
    x: Float[Array, "n width"],
    rope_position: Int[Array, "axes n"],
    steps: int,
    *,
    deepstack: Float[Array, "k n width"] | None = None,
) -> Int[np.ndarray, " steps"]:
    """The most probable token, `steps` times; it does not stop at an end token.

    Every step is a forward over the prompt and all tokens so far, padded on the right to the
    final length, so that one compiled shape serves all steps. Generated tokens have, on all axes,
    the rotary positions that follow the largest one of the prompt.

    Args:
        model: the model.
        x: embeddings of the prompt.
        rope_position: of the prompt's rows.
        steps: tokens to generate.
        deepstack: see `flowjax.models.decoder.deepened`.

    Returns:
        int32 [steps], token ids.

    Raises:
        FlowjaxError: `steps` is less than 1.
    """
    if steps < 1:
        raise FlowjaxError(f"tokens to generate: {steps}; at least 1 is needed")
    prompt = len(x)
    # The last token is never read.
    more = steps - 1
    x = jnp.pad(x, ((0, more), (0, 0)))
    following = jnp.max(rope_position) + 1 + jnp.arange(more, dtype=rope_position.dtype)
    following = jnp.broadcast_to(following, (len(rope_position), more))
    rope_position = jnp.concatenate([rope_position, following], axis=1)
    if deepstack is not None:
        deepstack = jnp.pad(deepstack, ((0, 0), (0, more), (0, 0)))
    tokens = []
    for length in range(prompt, prompt + steps):
        x, token = _step(model, x, rope_position, deepstack, jnp.asarray(length, jnp.int32))
        tokens.append(token)
    return np.array(tokens, np.int32)


@jax.jit
def _step(
    model: VideoLLM,
    x: Float[Array, "n width"],
    rope_position: Int[Array, "axes n"],
    deepstack: Float[Array, "k n width"] | None,
    length: Int[Array, ""],
) -> tuple[Float[Array, "n width"], Int[Array, ""]]:
    """The token after the first `length` rows, and `x` with its embedding in the next row."""
    decoder = model.decoder
    trace = decoder(
        x,
        causal_mask(decoder.config.layers, jnp.zeros(len(x), jnp.int32)),
        rope_position=rope_position,
        deepstack=deepstack,
        length=length,
    )
    token = jnp.argmax(decoder.logits(trace.output[length - 1][None])[0])
    # Past the end, which only the last step reaches, nothing is written.
    return x.at[length].set(decoder.embedding(token).astype(x.dtype), mode="drop"), token
