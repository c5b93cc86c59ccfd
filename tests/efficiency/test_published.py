"""Which tokens stay, beside the published rules written down in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flowjax.efficiency.choose import clues_of, in_place
from flowjax.efficiency.methods.dycoke import DyCoke
from flowjax.efficiency.methods.fastv import FastV
from flowjax.efficiency.methods.frames import Frames
from flowjax.efficiency.methods.prumerge import PruMerge
from flowjax.efficiency.methods.random_tokens import RandomTokens
from flowjax.efficiency.seen import see
from flowjax.models.decoder import Keep
from flowjax.models.stack import layer_at
from flowjax.models.vision.block import read_everything
from flowjax.models.vision.clip import ClipConfig
from flowjax.models.vision.siglip import SiglipConfig
from tests.efficiency.prompts import FRAMES, TOKENS, prompt_of
from tests.inference.masked import VARIANTS

DECODER = VARIANTS["mha"]


def tensor(x):
    return torch.from_numpy(np.array(x))


def chosen(chooser, prompt):
    """Positions that stay, and what all rows become."""
    count = chooser.kept(np.bincount(prompt.frame), prompt.grid.shape)
    clues = clues_of(prompt, look=chooser.looks)
    made, stays = in_place(prompt.embedded, clues, chooser=chooser, count=count)
    return np.flatnonzero(stays).tolist(), np.asarray(made.x)


def text_of(prompt):
    return set(range(prompt.layout.length)) - set(prompt.video.tolist())


@pytest.mark.parametrize("layer", [1, 2])
def test_fastv(layer):
    prompt = prompt_of(DECODER, seed=3)
    every = jnp.arange(prompt.layout.length)
    weights = tensor(DECODER(prompt.embedded, keep=Keep(attention=every)).attention)
    # The mean over heads of the last row of layer K, and the video tokens that it reads most.
    last = weights[layer - 1].mean(dim=0)[-1]
    first, tokens = int(prompt.video[0]), len(prompt.video)
    best = last[first : first + tokens].topk(round(0.3 * tokens)).indices + first
    kept = FastV(layer, 0.3).apply(prompt).prefill().kept
    assert set(np.asarray(kept).tolist()) == text_of(prompt) | set(best.tolist())


def published_prumerge(tokens, attention, key, count, near):
    """One frame: the places that stay, what is there then, and the sum of the others."""
    best = attention.topk(count).indices
    unit = torch.nn.functional.normalize(key, dim=-1)
    merged = {}
    for place in best.tolist():
        others = [at for at in range(len(tokens)) if at != place]
        cosine = unit[others] @ unit[place]
        nearest = [others[index] for index in cosine.topk(near).indices.tolist()]
        merged[place] = tokens[place] + sum(attention[at] * tokens[at] for at in nearest)
    rest = [at for at in range(len(tokens)) if at not in merged]
    return merged, sum(attention[at] * tokens[at] for at in rest)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_prumerge(share, monkeypatch):
    monkeypatch.setattr("flowjax.efficiency.methods.prumerge.NEAR", 2 / TOKENS)
    prompt = prompt_of(DECODER, seed=4)
    rows, x = chosen(PruMerge(share), prompt)
    count = round(share * TOKENS) - 1
    expected = []
    for frame in range(FRAMES):
        tokens = tensor(prompt.embedded.x)[torch.from_numpy(prompt.grid[frame])]
        attention, key = (tensor(part[frame]) for part in prompt.seen)
        merged, rest = published_prumerge(tokens, attention, key, count, 2)
        expected += [*(merged[place] for place in sorted(merged)), rest]
        stay = set(prompt.grid[frame][sorted(merged)].tolist())
        assert stay < set(rows)
    video = [row for row in rows if row in set(prompt.video.tolist())]
    assert set(rows) - set(video) == text_of(prompt)
    np.testing.assert_allclose(x[video], torch.stack(expected).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("merged", [0.3, 0.7])
def test_temporal_merging(merged):
    prompt = prompt_of(DECODER, seed=5)
    frames = tensor(prompt.embedded.x)[torch.from_numpy(prompt.grid)]
    stay = []
    for start in range(0, FRAMES, 4):
        for frame, other in ((0, None), (1, 0), (2, 0), (3, 2)):
            if start + frame >= FRAMES:
                continue
            places = list(range(TOKENS))
            if other is not None:
                alike = torch.nn.functional.cosine_similarity(
                    frames[start + frame], frames[start + other], dim=-1
                )
                least = int((1 - merged) * TOKENS)
                places = alike.topk(least, largest=False).indices.tolist()
            stay += prompt.grid[start + frame][places].tolist()
    rows, x = chosen(DyCoke(merged), prompt)
    assert set(rows) == text_of(prompt) | set(stay)
    np.testing.assert_array_equal(x, prompt.embedded.x)


def test_frames_are_the_middle_ones_of_equal_parts():
    prompt = prompt_of(DECODER)
    for count, frames in ((1, [3]), (2, [1, 4]), (3, [1, 3, 5]), (6, range(6))):
        rows, _ = chosen(Frames(count / FRAMES), prompt)
        assert set(rows) == text_of(prompt) | set(prompt.grid[list(frames)].ravel().tolist())


def test_random_tokens_differ_from_sample_to_sample_and_not_from_run_to_run():
    setting = RandomTokens(0.5)
    one, again, other = (chosen(setting, prompt_of(DECODER, seed=seed))[0] for seed in (1, 1, 2))
    assert one == again != other
    assert len(one) == len(other) == len(text_of(prompt_of(DECODER))) + FRAMES * TOKENS // 2


def towers():
    sizes = 24, 32, 3, 2, 24, 6, 3, 1e-5, "gelu"
    yield ClipConfig(*sizes, class_token=False).build(jnp.dtype("float32"), nnx.Rngs(0)), 1
    yield SiglipConfig(*sizes, output_norm=True).build(jnp.dtype("float32"), nnx.Rngs(0)), 0


def read_in_last_layer(tower, image):
    read = []

    def record(query, key, value):
        read.extend((query, key))
        return read_everything(query, key, value)

    layer_at(tower.layers, 2)(tower._through(image, 2), record)
    return (tensor(part).reshape(len(part), -1) for part in read)


@pytest.mark.parametrize(("tower", "class_tokens"), [*towers()])
def test_what_the_tower_shows(tower, class_tokens):
    pixels = jax.random.normal(jax.random.key(0), (2, 3, 24, 24))
    seen = see(tower, pixels, (2, 2))
    for frame in range(2):
        query, key = read_in_last_layer(tower, pixels[frame])
        weights = torch.softmax(query @ key.T / 24**0.5, dim=-1)
        weights = (weights[:1] if class_tokens else weights).mean(dim=0)[class_tokens:]
        grid = weights.reshape(2, 2, 2, 2).sum(dim=(1, 3)).reshape(-1)
        np.testing.assert_allclose(seen.attention[frame], grid.numpy(), rtol=0, atol=1e-6)
        keys = key[class_tokens:].reshape(2, 2, 2, 2, -1).mean(dim=(1, 3)).reshape(4, -1)
        np.testing.assert_allclose(seen.key[frame], keys.numpy(), rtol=0, atol=1e-5)
