"""How `transformers` is asked what we are: each family's file in `families` says it in `PEERS`."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

import flowjax_convert.families
from flowjax.data.prompt import Prompt
from flowjax.errors import FlowjaxError
from flowjax.layout import EncodedPrompt
from flowjax.models.video_llm import VideoLLM
from flowjax.submodules import submodules


@dataclass(frozen=True, eq=False)
class CheckedPrompt:
    """One question about one video as flowjax asks it.

    frames: uint8 [t, h, w, 3].
    timestamps: of the frames, in seconds.
    pixel_values: float32 [units, ...], with the axes of the family's preprocessor.
    text: the prompt before it is tokenized.
    encoded: the prompt as the model reads it.
    video: what the video is, in words.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    timestamps: tuple[float, ...]
    pixel_values: Float[np.ndarray, "units ..."]
    text: Prompt
    encoded: EncodedPrompt
    video: str


Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
"""Arguments of a model of `transformers` by name, as numpy arrays."""


@dataclass(frozen=True)
class Peer:
    """How a model of `transformers` is asked.

    architecture: its class.
    inputs: the video's part of the arguments of its `forward`.
    projector: path of the module whose input is compared as the vision features.
    features: our vision features in that module's order, from the model and its tower's output.
    still_processor: the class that makes pixel values of single frames, for where `transformers`
        has no video processor without torchvision; empty where no such class makes them.
    pooled: whether the video's embeddings are pooled by `torch` between parts of the model, which
        has no video path of its own.
    """

    architecture: str
    inputs: Callable[[CheckedPrompt], Arrays]
    projector: str
    features: Callable[[VideoLLM, Array, CheckedPrompt], Array] = lambda _, features, __: features
    still_processor: str = ""
    pooled: bool = False

    @property
    def compared(self) -> str:
        """What the two sides are, in words."""
        if self.pooled:
            return (
                f"vision tower, projector and decoder of {self.architecture}, which has no video "
                "path, joined by PyTorch's adaptive_avg_pool3d as PLLaVA's code joins them"
            )
        return self.architecture


def frame_pixels(prompt: CheckedPrompt) -> Arrays:
    """Frames as a batch of one video: float32 [1, t, channels, h, w]."""
    return {"pixel_values_videos": prompt.pixel_values[None]}


def image_pixels(prompt: CheckedPrompt) -> Arrays:
    """Frames as images of their own: float32 [t, channels, h, w]."""
    return {"pixel_values": prompt.pixel_values}


def patch_pixels(prompt: CheckedPrompt) -> Arrays:
    """All patches of the video, float32 [patches, values], and its grid of them."""
    pixels = prompt.pixel_values
    frames, rows, columns, block, values = pixels.shape
    side = math.isqrt(block)
    return {
        "pixel_values_videos": pixels.reshape(-1, values),
        "video_grid_thw": np.array([[frames, side * rows, side * columns]]),
        "video_merge_sizes": np.array([side]),
        "mm_token_type_ids": 2
        * np.isin(np.arange(len(prompt.encoded.ids)), prompt.encoded.video_position).astype(
            np.int32
        )[None],
    }


def timed_patch_pixels(prompt: CheckedPrompt) -> Arrays:
    """`patch_pixels`, and how many seconds lie between temporal patches."""
    between = max(len(prompt.timestamps) - 1, 1)
    gap = (prompt.timestamps[-1] - prompt.timestamps[0]) / between
    depth = -(-len(prompt.frames) // len(prompt.pixel_values))
    seconds = np.array([depth * gap], np.float32)
    return {**patch_pixels(prompt), "second_per_grid_ts": seconds}


@functools.cache
def peers() -> dict[str, Peer]:
    """By `model_type` of a `config.json`: the `PEERS` of every family that has some."""
    found = submodules(flowjax_convert.families).values()
    return {name: peer for module in found for name, peer in getattr(module, "PEERS", {}).items()}


REMOTE = {
    "internvl_chat": "the same release ending in -HF",
    "llava_qwen": "the same release ending in -hf (llava_onevision)",
    "llavaonevision1_5": "",
    "videollama3_qwen2": "the same release in transformers' layout (video_llama_3)",
}
"""Layouts whose class comes with the checkpoint, and the layout to compare with instead, if any."""


def peer_of(fields: Mapping[str, Any], source: str) -> Peer:
    """How the checkpoint with this `config.json` is asked.

    Raises:
        FlowjaxError: `transformers` has no class of its own for it.
    """
    original = "mm_vision_tower" in fields  # LLaVA's own layouts have model types of others, too
    kind = "llava_qwen" if original else str(fields.get("model_type"))
    if kind in peers():
        return peers()[kind]
    if kind in REMOTE:
        other = f", and `flowjax check` {REMOTE[kind]}" if REMOTE[kind] else ""
        raise FlowjaxError(
            f"{source}: model_type is {kind!r}, whose class is code that comes with the checkpoint "
            "(trust_remote_code) and is not run; `flowjax convert SRC --verify MODEL` compares the "
            f"weights{other}"
        )
    raise FlowjaxError(
        f"{source}: model_type is {kind!r}; `flowjax check` knows how to ask "
        f"{', '.join(sorted(peers()))}"
    )
