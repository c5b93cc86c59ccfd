"""What an asked prompt's states read as: logit lens, attention weights, and generated text."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from flowjax.api.forward import layout_for
from flowjax.api.rows import Rows
from flowjax.asked.asked import Asked
from flowjax.edges import Knockout
from flowjax.errors import FlowjaxError
from flowjax.inference.compile import compile_pathway
from flowjax.inference.decode import Sampling
from flowjax.inference.decode import generate as generate_tokens
from flowjax.inference.end_tokens import end_tokens
from flowjax.lens.project import Through
from flowjax.lens.read import read_attention, read_lens
from flowjax.padding import LENGTH_STEP, pad_prompt, padded_mask, round_up
from flowjax.pathway import Pathway
from flowjax.token_text import token_texts


@dataclass(frozen=True, eq=False, repr=False)
class Lens(Rows):
    """The most probable tokens that every layer's states read as, one row per layer and position.

    ids: int32 [layers, positions, k], most probable first.
    probability: float32 of the same shape.
    """

    ids: Int[np.ndarray, "layers positions k"]
    probability: Float[np.ndarray, "layers positions k"]


def logit_lens(asked: Asked, at: str = "video", *, k: int = 5, through: Through = "output") -> Lens:
    """What the states at some positions read as after every layer (nostalgebraist 2020).

    Args:
        asked: what `ask` gave.
        at: a token group.
        k: tokens per layer and position.
        through: "output" reads through final norm and output head; "input" through the token
            embeddings, as the published reference does.

    Returns:
        A table with the columns layer (0-based), position, group, token_ids, tokens (their texts,
        blanks and special tokens kept) and probability.

    Raises:
        FlowjaxError: no such group, or `k` below 1 or above the vocabulary.

    Examples:
        >>> lens = fj.logit_lens(asked, at="last")
        >>> lens.table.num_rows == asked.decoder.config.layers
        True
    """
    if not 1 <= k <= asked.decoder.config.vocabulary:
        raise FlowjaxError(f"k={k}: give 1 to {asked.decoder.config.vocabulary} tokens")
    positions = asked.layout.positions(at)
    padded = np.resize(positions, round_up(len(positions), LENGTH_STEP))
    read = read_lens(
        asked.decoder, pad_prompt(asked.embedded), jnp.asarray(padded), k=k, through=through
    )
    ids, probability = (np.asarray(part)[:, : len(positions)] for part in read.top)
    layers, count = ids.shape[:2]
    unique = np.unique(ids).tolist()
    text = dict(zip(unique, token_texts(asked.model.tokenizer, unique), strict=True))
    table = pa.table(
        {
            "layer": pa.array(np.repeat(np.arange(layers), count), pa.int32()),
            "position": pa.array(np.tile(positions, layers), pa.int32()),
            "group": [asked.layout.cells[asked.layout.cell[p]] for p in positions] * layers,
            "token_ids": ids.reshape(-1, k).astype(np.int32).tolist(),
            "tokens": [[text[token] for token in row] for row in ids.reshape(-1, k).tolist()],
            "probability": probability.reshape(-1, k).astype(np.float64).tolist(),
        }
    )
    return Lens(table, ids, probability)


@dataclass(frozen=True, eq=False, repr=False)
class Attention(Rows):
    """Attention of a target's rows, averaged over them: one row per layer, head and source group.

    weights: float32 [layers, heads, n], to every position.
    """

    weights: Float[np.ndarray, "layers heads n"]


def attention(asked: Asked, target: str = "last", *, knockout: Knockout | None = None) -> Attention:
    """Where a group's rows attend to, in every layer and head.

    Args:
        asked: what `ask` gave.
        target: a token group; weights are averaged over its positions.
        knockout: edges that are cut; None for none.

    Returns:
        A table with the columns layer, head (both 0-based), source (a token group) and weight,
        the sum over the group's positions.

    Raises:
        FlowjaxError: no such group.

    Examples:
        >>> seen = fj.attention(asked, target="last")
        >>> seen.weights.shape[-1] == asked.layout.length
        True
    """
    config, layout = asked.decoder.config, asked.layout
    cut = () if knockout is None else (knockout,)
    rows = layout.positions(target)
    read = read_attention(
        asked.decoder,
        pad_prompt(asked.embedded),
        padded_mask(layout_for(cut, layout), cut, config),
        jnp.asarray(rows),
        jnp.full(len(rows), 1 / len(rows)),
    )
    weights = np.asarray(read.attention)[:, :, : layout.length]
    cells = len(layout.cells)
    by_cell = weights @ np.eye(cells, dtype=weights.dtype)[layout.cell]
    layers, heads = weights.shape[:2]
    table = pa.table(
        {
            "layer": pa.array(np.repeat(np.arange(layers), heads * cells), pa.int32()),
            "head": pa.array(np.tile(np.repeat(np.arange(heads), cells), layers), pa.int32()),
            "source": list(layout.cells) * (layers * heads),
            "weight": by_cell.reshape(-1).astype(np.float64),
        }
    )
    return Attention(table, weights)


@dataclass(frozen=True)
class Generated:
    """A generated answer.

    tokens: ids, without the one that ended it.
    """

    text: str
    tokens: tuple[int, ...]

    def __str__(self) -> str:
        """The text."""
        return self.text


def generate(
    asked: Asked,
    max_new_tokens: int = 64,
    *,
    pathway: Pathway | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Generated:
    """Let the model go on with its answer.

    Args:
        asked: what `ask` gave.
        max_new_tokens: at most; an end token ends the text before.
        pathway: the only edges to read by; None for all.
        temperature: 0 takes the most probable token.
        top_p: draw only among the most probable tokens that together have this probability.
        seed: the same seed, the same text.

    Raises:
        FlowjaxError: a number out of range.

    Examples:
        >>> len(fj.generate(asked, max_new_tokens=3).tokens) <= 3
        True
    """
    if max_new_tokens < 1:
        raise FlowjaxError(f"max_new_tokens={max_new_tokens}: at least 1 is needed")
    layout = asked.layout
    cut = () if pathway is None else pathway.knockouts(layout)
    compiled = compile_pathway(layout, cut, asked.decoder.config, room=max_new_tokens - 1)
    model = asked.model
    tokens = generate_tokens(
        asked.decoder,
        asked.embedded,
        compiled,
        tokens=max_new_tokens,
        sampling=Sampling(temperature, top_p, seed),
        stop=end_tokens(model.path, model.tokenizer),
    )
    chosen = tuple(tokens)
    return Generated(model.tokenizer.decode(list(chosen)), chosen)
