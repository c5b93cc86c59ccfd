"""VideoLLaMA3 as first released: what the recorded values of tests/oracle do not show."""

import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.asked.asked import ask_sample
from flowjax.data.encode import write_mp4
from flowjax.data.prompt import Question, VideoShape
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.models.checkpoint import load_model
from flowjax.models.families.videollama3 import FAMILY
from flowjax.models.vision.block import read_everything
from flowjax.models.vision.siglip_navit import patch_rotary, read_all_frames
from flowjax_convert.run import convert, read_checkpoint
from flowjax_convert.verify import verify
from tests.convert.checkpoints import light_copy, rewrite, tensors_of
from tests.models.parity import random_frames
from tests.models.refusals import check_fields_refused, check_keys_refused

ORACLE = Path(__file__).parents[1] / "oracle" / "data" / "videollama3"
CONFIG = json.loads((ORACLE / "config.json").read_text())
VISION = "model.vision_encoder."


@pytest.fixture
def source(tmp_path) -> Path:
    """A copy of the checkpoint to change; its weights are no longer linked to the original."""
    copy = light_copy(ORACLE, tmp_path / "source")
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content)
    return copy


def spell(tensors: dict) -> None:
    """Give the keys of the vision tower the form that the training code writes."""
    for key in [key for key in tensors if key.startswith(VISION)]:
        rest = key.removeprefix(VISION)
        tensors[f"{VISION}vision_encoder.{rest}"] = tensors.pop(key)


def filled(folder: Path) -> dict:
    """Every parameter's values from a checkpoint, layer by layer."""
    checkpoint = read_checkpoint(folder)
    return {
        (parameter.path, index): parameter.values(checkpoint.source, index).copy()
        for parameter in checkpoint.plan.parameters
        for index in range(len(parameter.keys))
    }


def test_layout_of_the_training_code(source, tmp_path):
    expected = filled(ORACLE)
    rewrite(source / "model.safetensors", spell)
    found = filled(source)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)
    convert(source, tmp_path / "out")


def test_keys_in_both_layouts_at_once(source):
    key = f"{VISION}post_layernorm.bias"
    original = tensors_of(source / "model.safetensors")[key]
    rewrite(source / "model.safetensors", spell)
    rewrite(source / "model.safetensors", lambda tensors: tensors.update({key: original}))
    with pytest.raises(FlowjaxError, match=f"{key} is unknown"):
        read_checkpoint(source)
    other = f"{VISION}vision_encoder.post_layernorm.bias"
    rewrite(source / "model.safetensors", lambda tensors: tensors.pop(other))
    with pytest.raises(FlowjaxError, match=f"{other} is missing"):
        read_checkpoint(source)


def test_every_key_and_field_is_read():
    check_keys_refused(ORACLE)
    positions = {"max_position_embeddings", "max_window_layers", "sliding_window"}
    check_fields_refused(ORACLE, unread={*positions, "vision_encoder"})


def read(**changes):
    return FAMILY.read_config(CONFIG | changes, "config.json")


def test_released_7b_sizes():
    config = read(
        hidden_size=3584,
        num_attention_heads=28,
        num_key_value_heads=4,
        num_hidden_layers=28,
        vision_encoder_config={
            "model_type": "videollama3_vision_encoder",
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
        },
        num_frames=32,
    )
    assert (config.decoder.layers, config.decoder.head_dim, config.decoder.qkv_bias) == (
        28, 128, True,
    )  # fmt: skip
    assert (config.vision.layers, config.vision.channels, config.vision.norm_eps) == (27, 3, 1e-6)
    assert config.vision.activation == "gelu_pytorch_tanh"
    assert (config.frames, config.placeholder) == (32, 643)
    assert read().frames == 16


def test_leftovers_of_training_change_nothing():
    training = {"vision_encoder": "DAMO/SigLIP-NaViT", "max_frames": 180, "llm_lr": 1e-5}
    assert read(**training, use_token_compression=False) == read()


@pytest.mark.parametrize(
    ("implementation", "across"),
    [(None, False), ("eager", True), ("sdpa", False), ("flash_attention_2", False)],
)
def test_attention_of_the_vision_tower(implementation, across):
    assert read(_attn_implementation=implementation).vision.across_frames is across


def test_vision_attention_is_chosen_at_conversion(tmp_path):
    convert(ORACLE, tmp_path / "model", vision_attention="eager")
    loaded = load_model(tmp_path / "model", parameters=False)
    assert loaded.config.vision.across_frames
    assert not verify(ORACLE, tmp_path / "model").differences
    for source, name in ((ORACLE, "flex"), (ORACLE.parent / "pllava", "eager")):
        with pytest.raises(FlowjaxError, match=f"--vision-attention {name}: the choices of "):
            convert(source, tmp_path / "other", vision_attention=name)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("_attn_implementation", "flex_attention"),
        ("mm_projector_type", "linear"),
        ("vision_encoder", 3),
        ("vision_encoder_config", None),
        ("image_token_index", -1),
        ("use_token_compression", "yes"),
        ("num_frames", 0),
        ("use_sliding_window", True),
        ("hidden_act", "gelu"),
        ("unheard_of", 1),
    ],
)
def test_field_that_is_not_supported(field, value):
    with pytest.raises(FlowjaxError, match=f"config.json: {field}"):
        read(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "siglip_vision_model"),
        ("hidden_act", "relu"),
        ("hidden_size", 24),
        ("num_channels", 1),
        ("layer_norm_eps", 0),
        ("num_hidden_layers", 0),
        ("patch_size", "14"),
        ("rope_parameters", {"rope_type": "default"}),
        ("spatial_merge_size", 2),
    ],
)
def test_field_of_the_vision_tower_that_is_not_supported(field, value):
    vision = CONFIG["vision_encoder_config"] | {field: value}
    with pytest.raises(FlowjaxError, match=f"vision_encoder_config.{field}"):
        read(vision_encoder_config=vision)


def test_vision_tower_that_is_only_named():
    fields = {name: value for name, value in CONFIG.items() if name != "vision_encoder_config"}
    with pytest.raises(FlowjaxError, match=r"vision_encoder_config is missing.*DAMO/SigLIP-NaViT"):
        FAMILY.read_config(fields | {"vision_encoder": "DAMO/SigLIP-NaViT"}, "config.json")


def test_prompt_of_another_size():
    question = Question("Which one?", ("This", "That"), "B")
    shape = VideoShape((2, 3, 5, 4, 48), (0.04, 61.25))
    prompt = FAMILY.prompt(read(), question, shape)
    assert prompt.videos == ((("frame_0", 15),), (("frame_1", 15),))
    assert prompt.text.startswith(
        "<|im_start|>user\nTime 0.0s:<image>,Time 61.2s:<image>\nQuestion"
    )
    cells = {}
    for span in prompt.spans:
        cells[span.cell] = cells.get(span.cell, "") + prompt.text[span.start : span.stop]
    assert cells["frame_1"] == ",Time 61.2s:"
    assert cells["question_stem"] == "Which one?\n"
    assert (cells["option_A"], cells["option_B"]) == ("(A) This\n", "(B) That\n")
    assert cells["instruction"].startswith("\nAnswer with the option's letter")


def test_times_and_sizes_of_videos(source, tmp_path):
    """Each video's own frame times and grid reach the prompt, and its embeddings fit."""
    fields = CONFIG | {"num_frames": 3}
    (source / "config.json").write_text(json.dumps(fields))
    convert(source, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    question = Question("Which one?", ("This", "That"), "B")
    for name, (height, width), tokens in (("a", (32, 48), 24), ("b", (48, 40), 30)):
        path = tmp_path / f"{name}.mp4"
        write_mp4(path, random_frames(12, height, width), 4)
        prepared = ask_sample(loaded, Sample(name, "test", path, question))
        layout = prepared.prompt.layout
        assert len(prepared.prompt.video_position) == 3 * tokens
        text = loaded.tokenizer.decode(prepared.prompt.ids.tolist(), skip_special_tokens=False)
        times = [float(time) for time in re.findall(r"Time ([\d.]+)s:", text)]
        # The middles of three parts of 12 frames, at 4 frames a second.
        assert times == [0.2, 1.2, 2.0]
        embedded = prepared.embedded
        assert embedded.x.shape == (layout.length, 48)
        assert np.isfinite(embedded.x).all()


def test_preprocessor_of_another_model():
    question = Question("Which one?", ("This", "That"), "B")
    with pytest.raises(FlowjaxError, match="patch_size"):
        FAMILY.prompt(read(), question, VideoShape((2, 3, 5, 4, 588), (0.0, 1.0)))


def test_rotation_goes_by_row_and_column():
    """Written out patch by patch, in the order of blocks."""
    rows, columns, merge, head_dim, theta = 2, 3, 2, 8, 100.0
    rotary = patch_rotary(rows, columns, merge, head_dim=head_dim, theta=theta)
    places = [
        (merge * block_row + row, merge * block_column + column)
        for block_row in range(rows)
        for block_column in range(columns)
        for row in range(merge)
        for column in range(merge)
    ]
    expected = [
        [place / theta ** (2 * i / (head_dim / 2)) for place in pair for i in range(2)] * 2
        for pair in places
    ]
    np.testing.assert_allclose(rotary.cos, np.cos(expected), atol=1e-6)
    np.testing.assert_allclose(rotary.sin, np.sin(expected), atol=1e-6)


def test_attention_across_frames_prefers_the_own_frame():
    """Against softmax(scores + 1[same frame]) over all patches, written densely."""
    frames, n, heads, d = 3, 4, 2, 8
    query, key, value = jax.random.normal(jax.random.key(0), (3, frames, n, heads, d))
    flat = [x.reshape(frames * n, heads, d) for x in (query, key, value)]
    frame = np.arange(frames * n) // n
    scores = jnp.einsum("qhd,khd->hqk", flat[0], flat[1], precision="highest") / math.sqrt(d)

    def dense(scores):
        weights = jax.nn.softmax(scores, axis=-1)
        out = jnp.einsum("hqk,khd->qhd", weights, flat[2], precision="highest")
        return out.reshape(query.shape)

    same = frame[:, None] == frame
    np.testing.assert_allclose(read_all_frames(query, key, value), dense(scores + same), atol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(read_everything)(query, key, value),
        dense(jnp.where(same, scores, -jnp.inf)),
        atol=1e-5,
    )
