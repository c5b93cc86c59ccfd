"""Record what one version of `transformers` computes of `release_case`'s tiny checkpoints.

Run it from the project's root in an environment of that version (torch, and torchvision for
Qwen3-VL's processor)::

    python -m venv 4.49 && 4.49/bin/pip install torch transformers==4.49.0 pillow safetensors
    4.49/bin/python -m tests.models.record_release qwen2_vl 3
    4.49/bin/python -m tests.models.record_release qwen2_5_vl 3
    4.50/bin/python -m tests.models.record_release smolvlm 3    # also needs num2words
    PYTHONPATH=RELEASE/ds 4.57/bin/python -m tests.models.record_release llava_onevision1_5 3

writes `tests/models/releases/FAMILY-VERSION.npz`. The second argument is frames a second. The last
one runs the class that LLaVA-OneVision-1.5 was released with: RELEASE is a copy of its repository,
github.com/EvolvingLMMs-Lab/LLaVA-OneVision-1.5, at a5eb942.
"""

import importlib
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.models.release_case import (
    CASES,
    NEW_TOKENS,
    PREPROCESSOR,
    ROWS,
    SPECIAL,
    Case,
    frames,
    recording,
    tokenizer,
    weights,
)

CLASSES = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "smolvlm": "SmolVLM",
}


def fast_tokenizer(
    folder: Path, special: tuple[str, ...] = SPECIAL
) -> transformers.PreTrainedTokenizerFast:
    """The byte tokenizer as `transformers` wraps it."""
    tokenizer(special).save(str(folder / "tokenizer.json"))
    kind = transformers.Qwen2TokenizerFast if special == SPECIAL else None
    kind = kind or transformers.PreTrainedTokenizerFast
    return kind(tokenizer_file=str(folder / "tokenizer.json"))


SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""What the released template makes of one user's message with a video."""


def processed_smolvlm(case: Case, fps: float, folder: Path) -> dict[str, torch.Tensor]:
    """The released processor's inputs: it puts the frames, as images, between their times."""
    video = list(frames())
    words = fast_tokenizer(folder, case.special)
    config = case.config["vision_config"]
    side = config["image_size"] // config["patch_size"] // case.config["scale_factor"]
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**case.preprocessor), words, image_seq_len=side**2
    )
    metadata = types.SimpleNamespace(
        duration=len(video) / fps, fps=fps, frames_indices=range(len(video))
    )
    content = [{"type": "video"}, {"type": "text", "text": case.text}]
    (conversation,) = processor._process_messages_for_chat_template(
        [[{"role": "user", "content": content}]],
        batch_images=[],
        batch_videos=[[video]],
        batch_video_metadata=[[metadata]],
    )
    text = words.apply_chat_template(
        conversation,
        chat_template=SMOLVLM_TEMPLATE,
        tokenize=False,
        add_generation_prompt=True,
    )
    out = dict(processor(text=[text], videos=[video], return_tensors="pt"))
    out.pop("token_type_ids", None)
    return out


def processed_one_vision(case: Case, folder: Path) -> dict[str, torch.Tensor]:
    """Every frame by the released image processor, and the placeholder once per block of patches.

    The released processor's class, Qwen2.5-VL's, does the same with a video; it needs torchvision.
    """
    options = {name: value for name, value in case.preprocessor.items() if name != "size"}
    processor = transformers.Qwen2VLImageProcessor(**options, min_pixels=1, max_pixels=10**6)
    out = processor(images=list(frames()), return_tensors="pt")
    (frame,) = {tuple(grid) for grid in out["image_grid_thw"].tolist()}
    grid = torch.tensor([[len(frames()), *frame[1:]]])
    video = "<|video_pad|>"
    text = case.text.replace(video, video * (int(grid.prod()) // processor.merge_size**2))
    ids = fast_tokenizer(folder)(text, return_tensors="pt")
    return {**ids, "pixel_values_videos": out["pixel_values"], "video_grid_thw": grid}


def processed(family: str, case: Case, fps: float, folder: Path) -> dict[str, torch.Tensor]:
    """The released processor's inputs for the case's prompt and frames."""
    if family == "smolvlm":
        return processed_smolvlm(case, fps, folder)
    if family == "llava_onevision1_5":
        return processed_one_vision(case, folder)
    name, options = CLASSES[family], dict(PREPROCESSOR, min_pixels=1, max_pixels=10**6)
    video = list(frames())
    call = {"text": [case.text], "videos": [video], "return_tensors": "pt"}
    parts = [transformers.Qwen2VLImageProcessor(**options), fast_tokenizer(folder)]
    if hasattr(transformers, "Qwen2VLVideoProcessor"):
        own = getattr(transformers, f"{name}VideoProcessor", transformers.Qwen2VLVideoProcessor)
        size = {"shortest_edge": 1, "longest_edge": 10**6}
        parts.append(own(**PREPROCESSOR, size=size, do_sample_frames=False))
        call["videos"] = [np.stack(video)]
    if family == "qwen3_vl":
        call["video_metadata"] = [
            {"fps": fps, "frames_indices": list(range(len(video))), "total_num_frames": len(video)}
        ]
        call["do_sample_frames"] = False
    elif family == "qwen2_5_vl":
        call["fps"] = fps
    out = dict(getattr(transformers, f"{name}Processor")(*parts)(**call))
    if "second_per_grid_ts" in out:
        out["second_per_grid_ts"] = torch.as_tensor(out["second_per_grid_ts"])
    return out


def model_of(
    family: str, case: Case, folder: Path
) -> tuple[torch.nn.Module, dict[str, tuple[int, ...]]]:
    """The tiny model with the case's weights, and the shapes by the keys of a checkpoint."""
    if family == "llava_onevision1_5":
        module = importlib.import_module("llavaonevision1_5.modeling_llavaonevision1_5")
        kind = module.LLaVAOneVision1_5_ForConditionalGeneration
        settings = module.Llavaonevision1_5Config
    else:
        kind = getattr(transformers, f"{CLASSES[family]}ForConditionalGeneration")
        settings = getattr(transformers, f"{CLASSES[family]}Config")
    config = settings(**case.config)
    # Checkpoints have other keys than modules in some versions: those on disk count.
    kind(config).save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "np") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    save_file(weights(shapes), folder / "model.safetensors", {"format": "pt"})
    # The eager attention of LLaVA-OneVision-1.5's release stops at a name that it never defines.
    attention = "sdpa" if family == "llava_onevision1_5" else "eager"
    model = kind.from_pretrained(folder, attn_implementation=attention, torch_dtype=torch.float32)
    return model.eval(), shapes


def record(family: str, fps: float) -> Path:
    """Write the recording of one family, and say where."""
    case = CASES[family]
    with tempfile.TemporaryDirectory() as name:
        inputs = processed(family, case, fps, Path(name))
        model, shapes = model_of(family, case, Path(name))
    length = inputs["input_ids"].shape[1]
    more = {}
    if family == "llava_onevision1_5":
        positions = np.arange(length)[None]
        more["grid"] = inputs["video_grid_thw"][0].numpy()
        pixels = inputs["pixel_values_videos"][:8]
    elif "video_grid_thw" in inputs:
        inner = model if hasattr(model, "get_rope_index") else model.model
        names = ("video_grid_thw", "attention_mask", "second_per_grid_ts")
        grid = {name: inputs[name] for name in names if name in inputs}
        positions = inner.get_rope_index(inputs["input_ids"], **grid)[0][:, 0].numpy()
        more["grid"] = inputs["video_grid_thw"][0].numpy()
        pixels = inputs["pixel_values_videos"][:8]
    else:
        positions = np.arange(length)[None]
        values = inputs["pixel_values"]
        pixels = values.reshape(-1, values.shape[-1])[:96]
    with torch.no_grad():
        logits = model(**inputs).logits[0]
        # Without a token that ends, and as greedy as can be.
        tokens = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
        )
    path = recording(family, transformers.__version__)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        fps=fps,
        keys=np.array(list(shapes)),
        shapes=np.array([str(list(shape)) for shape in shapes.values()]),
        ids=inputs["input_ids"][0].numpy().astype(np.int32),
        positions=positions.astype(np.int32),
        pixels=pixels.numpy(),
        **more,
        logits=logits[::ROWS].numpy(),
        last=logits[-1].numpy(),
        tokens=tokens[0, length:].numpy().astype(np.int32),
    )
    return path


if __name__ == "__main__":
    print(record(sys.argv[1], float(sys.argv[2])))
