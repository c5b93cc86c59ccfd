"""The anchor: one token of a generated answer, and the prompt that leads to it.

A prompt continued by the tokens generated so far is a prompt like any other: its final position
predicts the next token, and every engine gives logits there. Generated tokens go on with the cell
of the prompt's final position, so knockouts of `last` reach them all.
"""

from collections.abc import Collection, Sequence

import jax.numpy as jnp
import numpy as np

from flowjax.inference.compile import compile_pathway
from flowjax.inference.decode import Sampling, generate_by
from flowjax.inference.exit_rule import ExitRule
from flowjax.layout import TokenLayout
from flowjax.models.embedded import Embedded
from flowjax.models.video_llm import VideoLLM


def tokens_until(
    model: VideoLLM, embedded: Embedded, count: int, stop: Collection[int]
) -> tuple[int, ...] | None:
    """The first `count` tokens of the greedy answer; None if it ends before.

    Args:
        model: the model.
        embedded: the prompt.
        count: at least 1.
        stop: tokens that end an answer.

    Raises:
        FlowjaxError: `count` is less than 1.
    """
    tokens = greedy_tokens(model, embedded, count, stop)
    return tokens if len(tokens) == count else None


def greedy_tokens(
    model: VideoLLM,
    embedded: Embedded,
    most: int,
    stop: Collection[int],
    rule: ExitRule | None = None,
) -> tuple[int, ...]:
    """The greedy answer: its tokens until one of `stop`, at most `most`; by an exit rule if given.

    Raises:
        FlowjaxError: `most` is less than 1.
    """
    layout = everything(len(embedded.x))
    compiled = compile_pathway(layout, (), model.decoder.config, room=most - 1)
    made = generate_by(
        model.decoder,
        embedded,
        compiled,
        tokens=most,
        sampling=Sampling(),
        stop=stop,
        rule=rule,
    )
    return tuple(token.id for token in made)


def everything(length: int) -> TokenLayout:
    """A prompt as one group, which nothing is cut from."""
    return TokenLayout.from_cells(["last"] * length)


def continued(
    model: VideoLLM, embedded: Embedded, layout: TokenLayout, tokens: Sequence[int]
) -> tuple[Embedded, TokenLayout]:
    """A prompt and its groups with generated tokens after it.

    They have, on all axes, the rotary positions that follow the largest one of the prompt.
    """
    more = len(tokens)
    if not more:
        return embedded, layout
    added = model.decoder.embedding(jnp.asarray(tokens, jnp.int32)).astype(embedded.x.dtype)
    rope = embedded.rope_position
    following = jnp.max(rope) + 1 + jnp.arange(more, dtype=rope.dtype)
    longer = Embedded(
        jnp.concatenate([embedded.x, added]),
        jnp.concatenate([rope, jnp.broadcast_to(following, (len(rope), more))], axis=1),
        embedded.padded(len(embedded.x) + more).deepstack,
    )
    cell = np.concatenate([layout.cell, np.full(more, layout.cell[-1], np.int32)])
    cell.flags.writeable = False
    return longer, TokenLayout(layout.cells, cell, layout.unions)
