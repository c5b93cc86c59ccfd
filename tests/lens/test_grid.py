"""The grid of a frame's tokens against what the projectors make of each patch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flowjax.data.prompt import Question, VideoShape
from flowjax.layout import EncodedPrompt, TokenLayout, encode_prompt
from flowjax.lens.grid import frame_grids
from flowjax.models.checkpoint import load_model
from flowjax.models.pixel_shuffle import PixelShuffleConfig
from flowjax.models.projector import MlpProjectorConfig, PoolingProjectorConfig
from flowjax.models.spatial_pool import NewlinePoolConfig, StridedPoolConfig
from flowjax.models.video_llm import VideoLLMConfig
from flowjax_convert.run import convert
from tests.lens.tiny import decoder

SIDE, FRAMES, WIDTH = 4, 2, 6
PROJECTORS = {
    "pooling": PoolingProjectorConfig(WIDTH, 8, (FRAMES, SIDE, SIDE), (FRAMES, 2, 4), "gelu"),
    "shuffle": PixelShuffleConfig(WIDTH, 8, SIDE, 2, False, "gelu"),
    "shuffle transposed": PixelShuffleConfig(WIDTH, 8, SIDE, 2, True, "gelu"),
    "strided": StridedPoolConfig(WIDTH, 8, SIDE, 2, "average", "gelu"),
    "halving": NewlinePoolConfig(WIDTH, 8, SIDE, 2, "bilinear", "one_token", "gelu"),
    "rows-end": NewlinePoolConfig(WIDTH, 8, SIDE, 2, "average", "grid", "gelu"),
    "frames-end": NewlinePoolConfig(WIDTH, 8, SIDE, 2, "max", "frame", "gelu"),
}


def config(projector, tokens):
    """A configuration of which only the projector and the tokens of a frame are read."""
    return VideoLLMConfig("none", decoder().config, projector, projector, FRAMES, tokens, 0)


def encoded(tokens_of_frames, closing=0):
    """A prompt with two text tokens, and one before every frame that belongs to it."""
    names, video = ["system", "system"], []
    for index, count in enumerate(tokens_of_frames):
        names.append(f"frame_{index}")
        video += range(len(names), len(names) + count)
        names += [f"frame_{index}"] * count
    if closing:
        video.append(len(names))
        names.append(f"frame_{len(tokens_of_frames) - 1}")
    names += ["question_stem", "last"]
    positions = np.array(video, np.int32)
    ids = np.zeros(len(names), np.int32)
    return EncodedPrompt(ids, positions, ids[None], TokenLayout.from_cells(names), "")


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_patch_changes_the_token_at_its_place(name):
    projector = PROJECTORS[name]
    module = projector.build(jnp.dtype(jnp.float32), nnx.Rngs(0))
    run = jax.jit(lambda features: module(features))
    plain = jax.random.normal(jax.random.key(0), (FRAMES, SIDE**2, WIDTH))
    tokens = run(plain)
    closing = len(tokens) % 2
    per_frame = len(tokens) // FRAMES
    prompt = encoded([per_frame] * FRAMES, closing)
    assert len(prompt.video_position) == len(tokens)
    found = frame_grids(config(projector, per_frame), prompt, (FRAMES, 3, 56, 56))
    rows, columns = (2, 4) if name == "pooling" else (2, 2)
    assert found.shape == (FRAMES, rows, columns)
    for frame, row, column in np.ndindex(FRAMES, SIDE, SIDE):
        changed = plain.at[frame, row * SIDE + column].add(3.0)
        moved = np.abs(np.asarray(run(changed) - tokens)).sum(-1)
        most = prompt.video_position[int(moved.argmax())]
        assert found[frame, row * rows // SIDE, column * columns // SIDE] == most


def test_text_among_the_frames_is_in_no_grid():
    prompt = encoded([6, 6])
    mlp = MlpProjectorConfig(WIDTH, 8, "gelu")
    found = frame_grids(config(mlp, None), prompt, (2, 2, 3, 4, 588))
    assert found.tolist() == [
        [[3, 4, 5], [6, 7, 8]],
        [[10, 11, 12], [13, 14, 15]],
    ]


def test_grids_of_real_prompts(pllava_oracle, tmp_path):
    """Every place of frame i holds a token of frame i, whatever the frames' shape."""
    for name, frame in (("pllava", (90, 160)), ("videollama3", (120, 90))):
        convert(str(pllava_oracle.parent / name), tmp_path / name)
        loaded = load_model(tmp_path / name, parameters=False)
        count = loaded.config.frames
        pixels = loaded.preprocess(np.zeros((count, *frame, 3), np.uint8))
        shape = VideoShape(pixels.shape, tuple(map(float, range(count))))
        question = Question("What?", ("this", "that"), "A")
        text = loaded.family.prompt(loaded.config, question, shape)
        prompt = encode_prompt(text, loaded.tokenizer)
        found = frame_grids(loaded.config, prompt, pixels.shape)
        assert found.size == len(prompt.video_position)
        for index, grid in enumerate(found):
            cells = {prompt.layout.cells[cell] for cell in prompt.layout.cell[grid.ravel()]}
            assert cells == {f"frame_{index}"}
        if name == "videollama3":
            assert found.shape[1] > found.shape[2]  # as the picture is
