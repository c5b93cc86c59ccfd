"""What `transformers` made of a prompt, as numpy arrays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

PARTS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention": "self_attn.o_proj",
    "mlp": "mlp",
}
"""Parts of a decoder layer that are compared by themselves, and the modules that give them."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """What `transformers` computed.

    folder: `layer_I.npy`, float32 [n, width], the input of every layer, and of the final norm under
        the number of layers; `layer_I_PART.npy`, float32 [rows, width], of `PARTS` where the
        layer has such modules.
    rows: the positions of the parts.
    ids: int64 [n], the prompt by its tokenizer.
    positions: int64 [axes, n] as rotary embedding reads them; None where all count from 0.
    features: [..., width], what the projector reads.
    normed: float32 [n, width], output of the final norm.
    logits: float32 [vocabulary], after the prompt.
    tokens: the most probable tokens, one after the other.
    knocked_out: float32 [knockouts, vocabulary], logits after the prompt.
    notes: what a reader should know of how it was loaded.
    """

    folder: Path
    layers: int
    rows: Int[np.ndarray, " rows"]
    ids: Int[np.ndarray, " ids"]
    positions: Int[np.ndarray, "axes n"] | None
    features: Float[np.ndarray, "..."]
    normed: Float[np.ndarray, "n width"]
    logits: Float[np.ndarray, " vocabulary"]
    tokens: tuple[int, ...]
    knocked_out: Float[np.ndarray, "knockouts vocabulary"]
    notes: tuple[str, ...]

    def layer(self, index: int) -> Float[np.ndarray, "n width"]:
        """The input of a layer, or of the final norm."""
        return np.load(self.folder / f"layer_{index}.npy", mmap_mode="r")

    def part(self, index: int, name: str) -> Float[np.ndarray, "rows width"] | None:
        """The output of a part of a layer; None where the layer has no such module."""
        path = self.folder / f"layer_{index}_{name}.npy"
        return np.load(path) if path.is_file() else None


@dataclass(frozen=True, eq=False)
class TheirPixels:
    """What `transformers` makes of the frames.

    values: None where it cannot; `how` says why.
    how: the class that made them.
    exact: whether it resizes with Pillow as we do; torchvision rounds to whole grey levels anew.
    """

    values: Float[np.ndarray, "..."] | None
    how: str
    exact: bool
