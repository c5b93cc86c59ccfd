"""VideoLLaMA3 as `transformers` has it, against random tiny models of the library."""

import numpy as np
import pytest
import torch
from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import (
    VideoLlama3ImageProcessorPil,
)

from flowjax.data.shared_budget import SharedBudgetPreprocessor
from flowjax.errors import FlowjaxError
from tests.models.parity import (
    ask,
    byte_tokenizer,
    check_forward,
    check_generation,
    check_knockouts,
    converted,
    random_frames,
    randomise,
)
from tests.models.refusals import check_fields_refused, check_keys_refused
from tests.models.stored_frames import check_stored_frames

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>")
PROCESSOR = {
    "video_processor_type": "VideoLlama3VideoProcessor",
    "size": {"shortest_edge": 16 * 16, "longest_edge": 4 * 40 * 56},
    "patch_size": 4,
    "merge_size": 2,
    "temporal_patch_size": 1,
    "do_sample_frames": False,
    "do_center_crop": None,
    "fps": 1,
    "max_frames": 180,
    "use_token_compression": True,
}

TEXT = {
    "model_type": "qwen2",
    "vocab_size": 272,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 4,
}


def build(text, vision, seed=0, **top) -> VideoLlama3ForConditionalGeneration:
    config = VideoLlama3Config(
        text_config=TEXT | text,
        vision_config=VISION | vision,
        image_token_id=258,
        video_token_id=259,
        **top,
    )
    model = VideoLlama3ForConditionalGeneration(config)
    randomise(model, seed)
    return model


def pair_of(folder, model):
    files = {
        # As on the hub: that of still images beside that of videos.
        "preprocessor_config.json": {"image_processor_type": "VideoLlama3ImageProcessor"},
        "video_preprocessor_config.json": PROCESSOR,
    }
    return converted(folder, model, byte_tokenizer(SPECIAL), files)


def patches(prompt, pixel_values):
    """The `Call` of models that read all patches of a video and its grid."""
    frames, rows, columns, _, values = pixel_values.shape
    return {
        "pixel_values_videos": torch.from_numpy(pixel_values.reshape(-1, values)),
        "video_grid_thw": torch.tensor([[frames, 2 * rows, 2 * columns]]),
        "video_merge_sizes": torch.tensor([2]),
    }


def rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    text = {"rope_parameters": rope(1e6)}
    return pair_of(tmp_path_factory.mktemp("grouped"), build(text, {}))


def test_grouped_key_heads(grouped):
    asked = ask(grouped, call=patches, frames=random_frames(4, 24, 34))
    assert asked.prepared.pixel_values.shape[:3] == (4, 3, 4)
    check_forward(asked)
    check_knockouts(asked, styles=("center",))
    check_generation(asked)


@pytest.mark.parametrize(
    ("text", "vision", "top", "frames"),
    [
        pytest.param(
            {"num_key_value_heads": 4, "num_hidden_layers": 5, "tie_word_embeddings": True},
            {
                "num_hidden_layers": 1,
                "rope_parameters": {"rope_type": "axial", "rope_theta": 500.0},
            },
            {},
            (1, 40, 56),
            id="all-key-heads-tied-one-frame",
        ),
        pytest.param(
            {"num_key_value_heads": 1, "rope_parameters": rope(1000.0), "num_hidden_layers": 4},
            {"num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-4},
            {"tie_word_embeddings": True},
            (7, 25, 14),
            id="one-key-head-tied-on-top-seven-frames",
        ),
    ],
)
def test_other_configurations(tmp_path, text, vision, top, frames):
    pair = pair_of(tmp_path, build(text, vision, seed=1, **top))
    assert pair.ours.config.decoder.tied_embeddings
    asked = ask(pair, call=patches, frames=random_frames(*frames))
    check_forward(asked)
    check_knockouts(asked, edges=("video->question", "question->last"), styles=("center",))


def test_every_key_and_field_is_read(grouped):
    check_keys_refused(grouped.checkpoint)
    unread = {"image_token_id", "text_config.max_window_layers", "text_config.sliding_window"}
    check_fields_refused(grouped.checkpoint, unread=unread)


def test_stored_frames(grouped, tmp_path):
    check_stored_frames(grouped.ours, tmp_path)


def test_timestamps_belong_to_frames(grouped):
    prompt = ask(grouped, call=patches, frames=random_frames(3, 16, 16)).prompt
    text = [grouped.ours.tokenizer.id_to_token(i) for i in prompt.ids]
    second = [text[i] for i in prompt.layout.positions("frame_1")]
    assert second == [*",TimeĠ0.5s:", *["<|video_pad|>"] * 4]
    assert text[prompt.layout.positions("video")[-1] + 1] == "Ċ"


@pytest.mark.parametrize(
    "shape", [(1, 9, 9), (2, 40, 56), (3, 100, 61), (5, 17, 200), (40, 30, 30), (3, 12, 20)]
)
def test_pixel_values(shape):
    """Those of the library's Pillow processor of still images, with a frame's share of pixels."""
    frames = random_frames(*shape)
    ours = SharedBudgetPreprocessor.from_config(PROCESSOR, "x")(frames)
    share = {"shortest_edge": 256, "longest_edge": PROCESSOR["size"]["longest_edge"] // shape[0]}
    theirs = VideoLlama3ImageProcessorPil(size=share, patch_size=4, merge_size=2)
    for frame, patches_of_frame in zip(frames, ours, strict=True):
        out = theirs([frame], return_tensors="np")
        rows, columns = ours.shape[1:3]
        assert out["image_grid_thw"].tolist() == [[1, 2 * rows, 2 * columns]]
        np.testing.assert_allclose(
            patches_of_frame.reshape(out["pixel_values"].shape), out["pixel_values"], atol=1e-6
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temporal_patch_size", 2),
        ("merge_size", 3),
        ("patch_size", 0),
        ("do_center_crop", True),
        ("do_resize", False),
        ("use_token_compression", "no"),
        ("size", {"height": 4, "width": 4}),
        ("unheard_of", 1),
    ],
)
def test_processor_field_that_is_not_supported(field, value):
    with pytest.raises(FlowjaxError, match=field if field != "size" else "shortest_edge"):
        SharedBudgetPreprocessor.from_config(PROCESSOR | {field: value}, "video")
