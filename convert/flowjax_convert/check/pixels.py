"""Pixel values of the same frames by `transformers`."""

from pathlib import Path

import numpy as np
import torch
import transformers

from flowjax.files import read_json
from flowjax.models.checkpoint import PREPROCESSOR
from flowjax_convert.check.peer import CheckedPrompt, Peer
from flowjax_convert.check.recorded import TheirPixels


def their_pixels(
    directory: Path, prompt: CheckedPrompt, peer: Peer, max_pixels: int | None = None
) -> TheirPixels:
    """The checkpoint's own video processor, or else the library's for single frames.

    Args:
        directory: the checkpoint.
        prompt: whose frames to read.
        peer: how the model is asked.
        max_pixels: in place of the configuration's bound; None for that.
    """
    height, width = prompt.frames.shape[1:3]
    reason = ""
    if peer.pooled and height != width:
        return TheirPixels(None, "PLLaVA's own resizing of frames that are not square", False)
    if not peer.pooled:
        try:
            processor = transformers.AutoVideoProcessor.from_pretrained(
                directory, local_files_only=True
            )
            video = torch.from_numpy(prompt.frames).permute(0, 3, 1, 2)
            size = dict(processor.size)
            if max_pixels is not None:
                size["longest_edge"] = max_pixels
            size = {name: side for name, side in size.items() if side is not None}
            out = processor(videos=[video], do_sample_frames=False, size=size, return_tensors="pt")
            name = "pixel_values_videos"
            return TheirPixels(out[name].float().numpy(), type(processor).__name__, False)
        except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = (str(error) or type(error).__name__).strip().splitlines()[0].split(" but ")[0]
    if not peer.still_processor:
        return TheirPixels(None, f"no video processor of transformers ({reason})", False)
    if not (directory / PREPROCESSOR).is_file():
        return TheirPixels(None, f"{PREPROCESSOR} is missing ({reason})", False)
    # The older of the two names is that of the class which uses Pillow where both exist.
    cls = getattr(transformers, f"{peer.still_processor}Pil", None)
    cls = cls or getattr(transformers, peer.still_processor)
    fields = read_json(directory / PREPROCESSOR)
    fields = {name: value for name, value in fields.items() if not name.startswith("crop_to_")}
    out = cls.from_dict(fields)(list(prompt.frames), return_tensors="np")
    return TheirPixels(np.asarray(out["pixel_values"]), cls.__name__, True)
