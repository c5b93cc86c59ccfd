"""Video tokens chosen before the decoder reads the prompt: a shorter prompt.

What is kept closes up: with one rotary axis it is numbered from 0 again, as in the published code
of these methods, whose decoders are given fewer embeddings; with several a token keeps its place
in the video. How many tokens are kept follows from the setting and the layout, so one program
serves all prompts of one length, whichever tokens it chooses.
"""

import functools
import hashlib
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from flowjax.efficiency.cut import compile_kept, cost_of
from flowjax.efficiency.method import Applied, Masked, Prefilled, Prompt
from flowjax.efficiency.seen import Seen
from flowjax.inference.compile import Compiled
from flowjax.inference.prefill import prefill
from flowjax.layout import TokenLayout
from flowjax.masks import EdgeMask
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.padding import pad_prompt, padded_mask


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Clues:
    """What a choice is made by.

    position: int32 [v], of the video tokens.
    frame: int32 [v], the frame of each, from 0.
    grid: int32 [frames, t], the video tokens that show a place of a frame, as indices into
        `position`; separators are in none.
    draw: uint32 [], what random choices are drawn by; the sample's own.
    seen: what the vision tower shows of the tokens in `grid`, where the setting asks for it.
    """

    position: Int[Array, " v"]
    frame: Int[Array, " v"]
    grid: Int[Array, "frames t"]
    draw: UInt[Array, ""]
    seen: Seen | None


class Choice(NamedTuple):
    """kept: int32 [k], ascending, among the video tokens; token: [k, width], what they become."""

    kept: Int[Array, " k"]
    token: Float[Array, "k width"]


@runtime_checkable
class Chooser(Protocol):
    """A setting that keeps some video tokens; a frozen dataclass, so that it is hashable."""

    @property
    def looks(self) -> bool:
        """Whether the choice reads what the vision tower shows."""
        ...

    def kept(self, tokens: Int[np.ndarray, " frames"], grid: tuple[int, int]) -> int:
        """How many video tokens are kept, of so many in each frame, `grid` of them places."""
        ...

    def choose(self, tokens: Float[Array, "v width"], clues: Clues, count: int) -> Choice:
        """Choose `count` of the video tokens; traced."""
        ...


def apply_choice(chooser: Chooser, prompt: Prompt) -> Applied:
    """The prompt with only the video tokens that are chosen.

    The masked form is the whole prompt, which shares programs, with the others cut; under a sliding
    window it is the shorter prompt.
    """
    config, layout = prompt.decoder.config, prompt.layout
    clues = clues_of(prompt, look=chooser.looks)
    count = chooser.kept(np.bincount(prompt.frame), prompt.grid.shape)
    short = plain_layout(layout.length - len(prompt.video) + count)
    compiled = compile_kept(short, (), config)

    def masked() -> Masked:
        padded = pad_prompt(prompt.embedded)
        made, stays = in_place(padded, clues, chooser=chooser, count=count)
        if config.window is not None:  # which counts what is kept, not what was there
            rows = jnp.flatnonzero(stays[: layout.length])
            return Masked(pad_prompt(_rows(made, rows)), padded_mask(short, (), config))
        allowed = np.ones((config.layers, 1, 2, 2), bool)
        allowed[..., 1] = False
        return Masked(made, EdgeMask((~stays).astype(jnp.int32), jnp.asarray(allowed)))

    return Applied(
        prefill_chosen(chooser, count),
        (prompt.decoder, prompt.embedded, compiled, clues),
        masked,
        lambda: cost_of(short, compiled, prompt),
        lambda _: compiled,
    )


def choose_places(
    tokens: Float[Array, "v width"],
    clues: Clues,
    stays: Bool[Array, "frames t"],
    count: int,
) -> Choice:
    """Keep some places of every frame, and every separator.

    Args:
        tokens: what every video token is or becomes.
        clues: of the prompt.
        stays: which places are kept.
        count: of video tokens that are kept.
    """
    kept = jnp.ones(len(tokens), bool).at[clues.grid].set(stays)
    at = jnp.nonzero(kept, size=count)[0].astype(jnp.int32)
    return Choice(at, tokens[at])


def plain_layout(length: int) -> TokenLayout:
    """A prompt that nothing is cut from."""
    return TokenLayout.from_cells(["prompt"] * (length - 1) + ["last"])


def clues_of(prompt: Prompt, *, look: bool) -> Clues:
    """What choices about a prompt are made by."""
    digest = hashlib.sha256(prompt.name.encode()).digest()
    return Clues(
        position=jnp.asarray(prompt.video),
        frame=jnp.asarray(prompt.frame, jnp.int32),
        grid=jnp.asarray(np.searchsorted(prompt.video, prompt.grid), jnp.int32),
        draw=jnp.asarray(int.from_bytes(digest[:4], "big"), jnp.uint32),
        seen=prompt.seen if look else None,
    )


@functools.cache
def prefill_chosen(chooser: Chooser, count: int) -> jax.stages.Wrapped:
    """A program of decoder, prompt, its shorter compiled form and clues, that gives `Prefilled`."""

    @jax.jit
    def run(decoder: Decoder, embedded: Embedded, compiled: Compiled, clues: Clues) -> Prefilled:
        made, stays = in_place(embedded, clues, chooser=chooser, count=count)
        rows = jnp.nonzero(stays, size=compiled.length)[0].astype(jnp.int32)
        logits, cache = prefill(decoder, _rows(made, rows), compiled)
        return Prefilled(logits, cache, rows)

    return run


def _rows(prompt: Embedded, rows: Int[Array, " k"]) -> Embedded:
    """Some positions of a prompt alone."""
    deepstack = prompt.deepstack
    return Embedded(
        prompt.x[rows],
        prompt.rope_position[:, rows],
        None if deepstack is None else deepstack[:, rows],
    )


@functools.partial(jax.jit, static_argnames=("chooser", "count"))
def in_place(
    embedded: Embedded, clues: Clues, *, chooser: Chooser, count: int
) -> tuple[Embedded, Bool[Array, " n"]]:
    """The whole prompt with the chosen tokens as they become, and which rows are kept."""
    choice = chooser.choose(embedded.x[clues.position], clues, count)
    at = clues.position[choice.kept]
    x = embedded.x.at[at].set(choice.token.astype(embedded.x.dtype))
    stays = jnp.ones(len(x), bool).at[clues.position].set(False).at[at].set(True)
    rope = embedded.rope_position
    if len(rope) == 1:
        rope = jnp.cumsum(stays, dtype=rope.dtype)[None] - 1
    return embedded._replace(x=x, rope_position=rope), stays
