"""Videos to patches with one budget of pixels for all frames: VideoLLaMA3 in `transformers`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from flowjax.data.temporal_patches import ProcessorDefaults, TemporalPatchPreprocessor
from flowjax.errors import FlowjaxError
from flowjax.hf_config import HFConfig

DEFAULTS = ProcessorDefaults(
    patch=14,
    least=128 * 28**2,
    most=768 * 28**2,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    whole_video=False,
)


@dataclass(frozen=True)
class SharedBudgetPreprocessor:
    """Patches one frame deep; `most` of `patches` is shared equally by the frames."""

    patches: TemporalPatchPreprocessor

    @classmethod
    def from_config(cls, config: Mapping[str, Any], source: str) -> "SharedBudgetPreprocessor":
        """Read a parsed video processor's configuration; `source` names it in errors.

        The original may leave out tokens that differ little from the frame before
        (`use_token_compression`); here all are kept, as in the published analysis.

        Raises:
            FlowjaxError: a field with a value that is not supported, or that is not known.
        """
        given = {name: value for name, value in config.items() if value is not None}
        fields = HFConfig(given, f"{source}: ")
        fields.expect("temporal_patch_size", 1)
        fields.take("use_token_compression", bool, True)
        given.pop("use_token_compression", None)
        patches = DEFAULTS.read({**given, "temporal_patch_size": 1}, source)
        if patches.merge > 2:
            raise FlowjaxError(
                f"{fields.name('merge_size')} is {patches.merge}; 1 and 2 are supported"
            )
        return cls(patches)

    def seen(self, frames: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h w 3"]:
        """The part of the frames that a model reads: all of them."""
        return frames

    def at_most(self, pixels: int) -> "SharedBudgetPreprocessor":
        """The same with another bound on the pixels of all frames together.

        Raises:
            FlowjaxError: it is below what one frame has at least.
        """
        return SharedBudgetPreprocessor(self.patches.at_most(pixels))

    def __call__(
        self, frames: UInt8[np.ndarray, "frames height width 3"]
    ) -> Float32[np.ndarray, "frames rows columns block values"]:
        """Patches of frames in RGB; see `TemporalPatchPreprocessor`."""
        share = max(1, self.patches.most // len(frames))
        return dataclasses.replace(self.patches, most=share)(frames)
