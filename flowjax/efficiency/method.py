"""What a method is: its settings, and what each of them makes of a prompt.

A method is one file in `flowjax.efficiency.methods`, which is searched: there is no list. Each
setting gives a prompt's prefill as a compiled program, what it costs, and its *masked form*: the
plain decoder under a mask of edges, to which the program is equal.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import flowjax.efficiency.methods
from flowjax.efficiency.seen import Seen
from flowjax.inference.compile import Compiled
from flowjax.inference.cost import PrefillCost
from flowjax.inference.prefill import ThinCache
from flowjax.layout import TokenLayout
from flowjax.lens.read import read_after, read_attention, read_logits
from flowjax.masks import Mask
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.padding import pad_prompt, padded_mask
from flowjax.pathway import Pathway
from flowjax.submodules import submodules


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt that a setting is applied to.

    name: of the sample; what is drawn at random is drawn by it.
    decoder: that reads it.
    embedded: without padding.
    layout: its token groups.
    grid: int32 [frames, t], positions of the video tokens that show a place of a frame, ascending;
        separators are in none.
    letters: int32 [options], token ids of the options' letters, for what is chosen by them.
    look: what the vision tower shows of those tokens, or raises why it cannot be told.
    """

    name: str
    decoder: Decoder
    embedded: Embedded
    layout: TokenLayout
    grid: Int[np.ndarray, "frames t"]
    letters: Int[np.ndarray, " options"]
    look: Callable[[], Seen]

    @cached_property
    def seen(self) -> Seen:
        """What the vision tower shows of the tokens in `grid`.

        Raises:
            FlowjaxError: the tower is of a kind whose attention is not read.
        """
        return self.look()

    @cached_property
    def video(self) -> Int[np.ndarray, " v"]:
        """Positions of the video, ascending.

        Raises:
            FlowjaxError: there is none.
        """
        return self.layout.positions("video").astype(np.int32)

    @cached_property
    def frame(self) -> Int[np.ndarray, " v"]:
        """The frame of every video token, from 0."""
        _, frame = np.unique(self.layout.cell[self.video], return_inverse=True)
        return frame.astype(np.int32)

    @cached_property
    def last_attention(self) -> Float[np.ndarray, "layers n"]:
        """Attention of the last position in every layer, with nothing cut: the mean over heads."""
        config = self.decoder.config
        target = jnp.asarray([self.layout.length - 1])
        mask = padded_mask(self.layout, (), config)
        prompt = pad_prompt(self.embedded)
        read = read_attention(self.decoder, prompt, mask, target, jnp.ones(1))
        return np.asarray(read.attention.mean(axis=1))[:, : self.layout.length]

    @property
    def value_bytes(self) -> int:
        """Of one value of a key."""
        return self.embedded.x.dtype.itemsize


class Prefilled(NamedTuple):
    """What a program gives.

    logits: float32 [vocabulary], after the prompt.
    cache: that `flowjax.inference.decode.decode` goes on from, with `Applied.compiled`.
    kept: int32 [k], ascending positions that the program itself chose to keep; None where they
        follow from the layout.
    """

    logits: Float[Array, " vocabulary"]
    cache: ThinCache
    kept: Int[Array, " k"] | None


class Masked(NamedTuple):
    """The masked form: the plain decoder's arguments, padded to lengths that share programs.

    layer: after which the answer is read, counted from 0; None for the last.
    """

    prompt: Embedded
    mask: Mask
    layer: int | None = None

    def logits(self, decoder: Decoder) -> Float[Array, " vocabulary"]:
        """What the plain decoder answers."""
        if self.layer is None:
            return read_logits(decoder, self.prompt, self.mask)
        return read_after(decoder, self.prompt, self.mask, jnp.asarray(self.layer))


@dataclass(frozen=True, eq=False)
class Applied:
    """A setting applied to a prompt.

    program: compiled once for all prompts of one shape, gives `Prefilled`; where states decide what
        comes next, a function of the host that calls several such programs.
    arguments: of the program, the decoder and the embedded prompt first.
    masked: makes the masked form.
    cost: counts the program's work; where states decide about it, of the masked form's.
    compiled: what decoding goes on with, given `Prefilled.kept`.
    """

    program: Callable[..., Prefilled]
    arguments: tuple
    masked: Callable[[], Masked]
    cost: Callable[[], PrefillCost]
    compiled: Callable[[Int[Array, " k"] | None], Compiled]

    def prefill(self) -> Prefilled:
        """Run the program."""
        return self.program(*self.arguments)


@runtime_checkable
class Setting(Protocol):
    """A method with all its parameters; a frozen dataclass."""

    @property
    def label(self) -> str:
        """The parameters, in words and numbers."""
        ...

    def apply(self, prompt: Prompt) -> Applied:
        """The setting on a prompt; nothing is run, and only shapes of the prompt's arrays are read.

        Raises:
            FlowjaxError: the prompt lacks what the method works on.
        """
        ...


@dataclass(frozen=True)
class Subject:
    """What settings are made for.

    family: the model's.
    layers: of its decoder.
    frames: that it reads.
    looks: whether its vision tower's attention can be read.
    found: pathways that were found for it, on other samples than are judged.
    """

    family: str
    layers: int
    frames: int
    looks: bool = True
    found: tuple[Pathway, ...] = ()


@dataclass(frozen=True)
class Method:
    """A way to make a prefill cheaper.

    title: for tables and figures.
    source: where it was published.
    settings: those that a model is run with, from the dearest to the cheapest; empty where the
        method has nothing to work on.
    """

    title: str
    source: str
    settings: Callable[[Subject], Sequence[Setting]]


@functools.cache
def methods() -> dict[str, Method]:
    """Every method by the name of its file."""
    found = submodules(flowjax.efficiency.methods)
    return {name: module.METHOD for name, module in found.items()}
