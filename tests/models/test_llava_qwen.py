"""LLaVA-Video and LLaVA-OneVision in their original layout.

`transformers` has the same modules (LLaVA-OneVision): its checkpoints, with keys renamed as the
original code writes them. The expectation joins its vision tower, projector and decoder as the
original code does, with PyTorch's pooling and newline tokens.
"""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from flowjax.data.prompt import Question, VideoShape
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.families.llava_qwen import FAMILY, PREPROCESSOR, read_config
from flowjax.models.registry import family_of
from flowjax_convert.run import convert
from tests.models import parity
from tests.models.family import FamilyTests, asked_in

TOKENIZER = parity.byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
TEXT = {
    "vocab_size": 270,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
QWEN = {"max_position_embeddings": 32768, "rope_theta": 1e6, "use_sliding_window": False}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 11,
}
TOP = {
    "add_faster_video": False,
    "architectures": ["LlavaQwenForCausalLM"],
    "hidden_act": "silu",
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": [[384, 768]],
    "max_window_layers": 28,
    "mm_hidden_size": 32,
    "mm_newline_position": "grid",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_spatial_pool_mode": "bilinear",
    "mm_spatial_pool_stride": 2,
    "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "model_type": "llava",
    "pos_skipping_range": 4096,
    "rope_scaling": None,
    "sliding_window": 131072,
    "tokenizer_model_max_length": 32768,
    "use_mm_proj": True,
    "use_pos_skipping": False,
}
CASES = {
    "grid": ({}, {}, {"add_time_instruction": True}, 3),
    "frame-tied": (
        {"tie_word_embeddings": True},
        {},
        {"mm_newline_position": "frame", "mm_spatial_pool_mode": "average"},
        4,
    ),
    "one_token": (
        {},
        {"patch_size": 7, "num_hidden_layers": 1},
        {
            "mm_newline_position": "one_token",
            "mm_spatial_pool_stride": 3,
            "model_type": "llava_qwen",
        },
        2,
    ),
    "flat-max": (
        {},
        {"num_hidden_layers": 1},
        {"mm_patch_merge_type": "flat", "mm_spatial_pool_mode": "max"},
        2,
    ),
}
RENAMED = {
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "model.multi_modal_projector.linear_1": "model.mm_projector.0",
    "model.multi_modal_projector.linear_2": "model.mm_projector.2",
    "model.language_model.": "model.",
}
UNREAD = {
    "image_aspect_ratio", "image_grid_pinpoints", "max_position_embeddings", "max_window_layers",
    "mm_tunable_parts", "mm_use_im_patch_token", "mm_vision_select_feature",
    "mm_vision_select_layer", "mm_vision_tower", "pos_skipping_range", "sliding_window",
    "use_mm_proj", "use_pos_skipping",
}  # fmt: skip


def fields_of(text, vision, top, frames) -> dict:
    return TOP | TEXT | QWEN | text | top | {"num_frames": frames, "vision_config": VISION | vision}


def torch_model(text, vision) -> torch.nn.Module:
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **TEXT, **QWEN, **text, **special},
        vision_config=VISION | vision | {"vision_use_head": False},
        video_token_index=260,
        image_token_index=261,
        tie_word_embeddings=(TEXT | text)["tie_word_embeddings"],
    )
    theirs = LlavaOnevisionForConditionalGeneration(config).eval()
    theirs.set_attn_implementation("eager")
    parity.randomise(theirs)
    return theirs


def original_tensors(theirs, fields) -> dict[str, torch.Tensor]:
    """The parameters by the keys of the original code."""
    tensors = {}
    for key, tensor in theirs.state_dict().items():
        for own, original in RENAMED.items():
            if key.startswith(own):
                key = original + key.removeprefix(own)
                break
        tensors[key] = tensor.contiguous()
    if theirs.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    if fields["mm_patch_merge_type"] == "flat":
        del tensors["model.image_newline"]
    return tensors


def video_embeddings(theirs, fields, pixels) -> torch.Tensor:
    """What the original code makes of frames."""
    model = theirs.model
    out = model.vision_tower(torch.from_numpy(pixels), output_hidden_states=True)
    features = model.multi_modal_projector(out.hidden_states[-1])
    side, stride = math.isqrt(features.shape[1]), fields["mm_spatial_pool_stride"]
    grid = features.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    match fields["mm_spatial_pool_mode"]:
        case "average":
            grid = functional.avg_pool2d(grid, stride)
        case "max":
            grid = functional.max_pool2d(grid, stride)
        case "bilinear":
            grid = functional.interpolate(
                grid, size=[math.ceil(side / stride)] * 2, mode="bilinear"
            )
    frames, width, rows, _ = grid.shape
    newline = model.image_newline
    kind = fields["mm_newline_position"]
    if fields["mm_patch_merge_type"] == "flat":
        kind = "no_token"
    if kind == "grid":
        ends = newline[None, :, None, None].expand(frames, width, rows, 1)
        return torch.cat([grid, ends], dim=3).permute(0, 2, 3, 1).reshape(-1, width)
    tokens = grid.permute(0, 2, 3, 1).reshape(frames, -1, width)
    if kind == "frame":
        tokens = torch.cat([tokens, newline[None, None].expand(frames, 1, width)], dim=1)
    tokens = tokens.reshape(-1, width)
    return torch.cat([tokens, newline[None]]) if kind == "one_token" else tokens


def case(folder, text, vision, top, frames):
    fields = fields_of(text, vision, top, frames)
    theirs = torch_model(text, vision)
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    save_file(original_tensors(theirs, fields), checkpoint / "model.safetensors")
    TOKENIZER.save(str(checkpoint / "tokenizer.json"))
    (checkpoint / "config.json").write_text(json.dumps(fields))
    size = {"size": {"height": 56, "width": 56}}
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | size))
    convert(checkpoint, folder / "model")
    pair = parity.Pair(theirs, load_model(folder / "model"), checkpoint)
    assert (pair.ours.config.family, pair.ours.config.frames) == ("llava_qwen", frames)

    def call(prompt, pixels):
        with torch.no_grad():
            x = theirs.get_input_embeddings()(torch.from_numpy(prompt.ids))
            video = video_embeddings(theirs, fields, pixels)
            x[torch.from_numpy(prompt.video_position).long()] = video
        return {"inputs_embeds": x[None]}

    return parity.ask(pair, call=call)


asked = asked_in(CASES, case)


class TestFamily(FamilyTests):
    unread = UNREAD
    # Few tokens of few frames matter too little for the other edges to show.
    test_knockouts = None

    def test_edges(self, asked):
        parity.check_knockouts(asked, parity.EDGES[2:])


def test_newlines_belong_to_their_frames(asked):
    layout, config = asked.prompt.layout, asked.pair.ours.config
    counts = [len(layout.positions(f"frame_{i}")) for i in range(config.frames)]
    assert [count for _, count in config.projector.frames(config.frames)] == counts
    places = config.projector.places(asked.prompt.video_position, config.frames, ())
    newline = asked.pair.theirs.model.image_newline.detach().numpy()
    ends = (np.asarray(asked.embedded.x) == newline).all(1)
    assert not ends[places].any()
    assert ends.sum() == len(asked.prompt.video_position) - places.size


def test_released_configuration():
    """The fields of LLaVA-Video-7B-Qwen2: neither a tower nor a preprocessor is described."""
    fields = TOP | QWEN | {
        "add_time_instruction": True,
        "faster_token_stride": 10,
        "force_sample": True,
        "hidden_size": 3584,
        "image_crop_resolution": None,
        "image_split_resolution": None,
        "intermediate_size": 18944,
        "mm_hidden_size": 1152,
        "mm_projector_lr": None,
        "mm_vision_tower_lr": 2e-06,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "vision_tower_pretrained": None,
        "vocab_size": 152064,
    }  # fmt: skip
    assert family_of(fields, "") is FAMILY
    config = read_config(fields, "config.json")
    assert (config.vision.layers, config.vision.grid, config.decoder.width) == (26, 27, 3584)
    assert (config.projector.side, config.tokens_per_frame) == (14, 14 * 15)
    local = read_config(fields | {"mm_vision_tower": "w/siglip-so400m-patch14-384/"}, "config.json")
    assert local == config
    plain = read_config(fields | {"mm_newline_position": None}, "config.json")
    assert plain.projector.newline == "one_token" and plain.tokens_per_frame == 14**2


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mm_vision_tower": "openai/clip", "vision_config": None}, "mm_vision_tower is 'openai/c"),
        ({"mm_newline_position": "row"}, "mm_newline_position is 'row'; it must be one of grid, f"),
        ({"mm_patch_merge_type": "spatial"}, "mm_patch_merge_type is 'spatial', which has no new"),
        ({"mm_patch_merge_type": "unpad"}, "mm_patch_merge_type is 'unpad'; it must be flat, spa"),
        ({"mm_spatial_pool_mode": "conv"}, "mm_spatial_pool_mode is 'conv'; it must be one of av"),
        ({"mm_spatial_pool_mode": "max", "mm_spatial_pool_stride": 6}, "stride is 6; a frame has"),
        ({"add_faster_video": True}, "add_faster_video is True; only False is supported"),
        ({"mm_resampler_type": "perceiver"}, "mm_resampler_type is 'perceiver'; flowjax does not"),
        ({"mm_projector_type": "linear"}, "mm_projector_type is 'linear'; only 'mlp2x_gelu'"),
    ],
)
def test_refused_configurations(changes, message):
    fields = fields_of(*CASES["grid"]) | changes
    with pytest.raises(FlowjaxError, match=f"^config.json: .*{message}"):
        read_config(fields, "config.json")


def test_prompt():
    question = Question("Who runs?", ("A dog.", "A cat."), "A")
    fields = fields_of(*CASES["grid"][:3], 2)
    shape = VideoShape((2, 3, 56, 56), (0.0, 1.5), 3.25)
    prompt = FAMILY.prompt(read_config(fields, "config.json"), question, shape)
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    end = (
        "Question: Who runs?\nOptions:\n(A) A dog.\n(B) A cat.\nOnly give the best option."
        "<|im_end|>\n<|im_start|>assistant\nBest option:("
    )
    assert prompt.text == (
        f"{start}<|endoftext|>\nThe video lasts for 3.25 seconds, and 2 frames are uniformly "
        "sampled from it. These frames are located at 0.00s,1.50s.Please answer the following "
        f"questions related to this video.\n{end}"
    )
    assert prompt.videos == ((("frame_0", 12), ("frame_1", 12)),)
    untimed = read_config(fields | {"add_time_instruction": False}, "config.json")
    assert FAMILY.prompt(untimed, question, shape).text == f"{start}<|endoftext|>\n{end}"


def test_the_released_preprocessing_needs_no_file(asked, tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).symlink_to(asked.pair.checkpoint / name)
    convert(tmp_path, tmp_path / "out")
    loaded = load_model(tmp_path / "out", parameters=False)
    pixels = loaded.preprocess(parity.random_frames(1, 60, 80))
    assert pixels.shape == (1, 3, 384, 384)
    assert -1 <= pixels.min() < -0.9 and 0.9 < pixels.max() <= 1
