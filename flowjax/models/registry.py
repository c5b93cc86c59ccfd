"""The model families, one file each in `flowjax.models.families`, found by importing them."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from numpy import ndarray

import flowjax.models.families
from flowjax.data.frame_rate import ByRate
from flowjax.data.prompt import Prompt, Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.video_llm import VideoLLMConfig
from flowjax.submodules import submodules


@runtime_checkable
class Preprocess(Protocol):
    """What makes pixel values of frames."""

    def __call__(self, frames: UInt8[ndarray, "t h w c"], /) -> Float[ndarray, "t ..."]:
        """Frames in RGB to pixel values, whose axes after the first are the family's own."""
        ...

    def seen(self, frames: UInt8[ndarray, "t h w c"], /) -> UInt8[ndarray, "t h2 w2 c"]:
        """The part of the frames that a model reads, neither resized nor normalised."""
        ...


@runtime_checkable
class BoundedPreprocess(Preprocess, Protocol):
    """What resizes frames to no more pixels than a bound, which can be another."""

    def at_most(self, pixels: int) -> Preprocess:
        """The same with this bound.

        Raises:
            FlowjaxError: a bound that is too low.
        """
        ...


BY_RATE = ByRate()


@dataclass(frozen=True)
class Family:
    """What one family of checkpoints needs beyond the shared modules.

    accepts: whether a parsed `config.json` is of this family.
    read_config: the configuration, refusing by name what it does not handle.
    read_preprocessor: frames uint8 [t, h, w, 3] to pixel values, from `preprocessor_config.json`.
    prompt: a question about a video of some shape, in the family's conversation format.
    preprocessor: what `read_preprocessor` reads of a checkpoint without such a file, where the
        released code alone says how frames become pixel values; None if there must be one.
    vision_attention: implementations of the vision tower's attention that compute different
        things in the released code, by the names in `config.json`; none where all agree.
    frames: how many frames its models read at least and at most; no bound above where None.
    by_rate: which frames a rate takes.
    pathways: names of the paper's pathways that were found on its models
        (see `flowjax.pathway.PRESETS`).
    """

    name: str
    accepts: Callable[[Mapping[str, Any]], bool]
    read_config: Callable[[Mapping[str, Any], str], VideoLLMConfig]
    read_preprocessor: Callable[[Mapping[str, Any], str], Preprocess]
    prompt: Callable[[VideoLLMConfig, Question, VideoShape], Prompt]
    preprocessor: Mapping[str, Any] | None = None
    vision_attention: tuple[str, ...] = ()
    frames: tuple[int, int | None] = (1, None)
    by_rate: ByRate = BY_RATE
    pathways: tuple[str, ...] = ()


@functools.cache
def families() -> dict[str, Family]:
    """Every family by name."""
    found = submodules(flowjax.models.families).values()
    return {module.FAMILY.name: module.FAMILY for module in found}


def family_of(config: Mapping[str, Any], source: str) -> Family:
    """The family of a parsed `config.json`.

    Raises:
        FlowjaxError: no family accepts it.
    """
    for family in families().values():
        if family.accepts(config):
            return family
    raise FlowjaxError(
        f"{source}: model_type {config.get('model_type')!r} is not supported; "
        f"the families are {', '.join(sorted(families()))}"
    )
