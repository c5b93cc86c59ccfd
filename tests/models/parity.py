"""Comparing a random tiny `transformers` model with what the conversion makes of its checkpoint.

A family's test builds a `transformers` model and a tokenizer, and says how the torch model is
called (`Call`). The rest is here::

    randomise(theirs, seed=0)
    pair = converted(tmp_path, theirs, byte_tokenizer(["<video>"]), files)
    asked = ask(pair, QUESTION, call)
    check_forward(asked)
    check_knockouts(asked)
    check_generation(asked)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from flowjax.asked.asked import Asked as AskedPrompt
from flowjax.data.prompt import Question, VideoShape
from flowjax.data.sample import Sample
from flowjax.edges import Knockout, cut_table, dense, parse_edges
from flowjax.inference.anchor import tokens_until
from flowjax.layer_windows import windows
from flowjax.layout import EncodedPrompt, encode_prompt
from flowjax.models.checkpoint import load_model
from flowjax.models.decoder import Keep
from flowjax.models.embedded import Embedded
from flowjax.models.loaded import LoadedModel
from flowjax.sweeps.engine import planned
from flowjax.sweeps.reference import full_forwards
from flowjax_convert.run import convert

RELATIVE = 1e-4
ABSOLUTE = 1e-4
EDGES = ("cross_frame", "video->question", "video->last+question->last", "instruction->last")
"""None of them leaves a row without any source: there the two sides differ on purpose."""

QUESTION = Question(
    "After the person in the red coat has put the glass of water on the table, and before the dog "
    "runs through the open door for the second time, what does the child who sits by the window "
    "do with the small green ball that lay under the old wooden chair next to the piano when the "
    "video began?",
    (
        "Throws the ball to the dog, which does not catch it.",
        "Puts the ball into the glass of water.",
        "Puts the ball back under the chair.",
    ),
    "B",
)
"""With a token per character, a prompt of more than 500 tokens."""


@dataclass(frozen=True)
class Pair:
    """A `transformers` model and ours, converted from its checkpoint."""

    theirs: torch.nn.Module
    ours: LoadedModel
    checkpoint: Path


@dataclass(frozen=True)
class Asked:
    """One question about one video, on both sides.

    inputs: arguments of the torch model's `forward`, `input_ids` or `inputs_embeds` among them.
    """

    pair: Pair
    prompt: EncodedPrompt
    prepared: AskedPrompt
    inputs: Mapping[str, torch.Tensor]

    @cached_property
    def embedded(self) -> Embedded:
        return self.prepared.embedded


Call = Callable[[EncodedPrompt, np.ndarray], Mapping[str, torch.Tensor]]
"""Expanded prompt and our pixel values to the arguments of the torch model besides `input_ids`,
which are the prompt's unless there is `inputs_embeds`."""


def videos_5d(prompt: EncodedPrompt, pixel_values: np.ndarray) -> Mapping[str, torch.Tensor]:
    """The `Call` of models that read `pixel_values_videos` as [1, frames, channels, h, w]."""
    return {"pixel_values_videos": torch.from_numpy(pixel_values)[None]}


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights with which every part matters: outputs of order 1, norms and biases not trivial.

    Attention is sharp enough for knockouts to show, and tied embeddings are small: else every token
    would be the most probable one after itself.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if id(parameter) in embeddings:
                parameter.copy_(noise)
            elif parameter.ndim > 1:
                sharpness = 2 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1
                parameter.copy_(sharpness * noise * parameter[0].numel() ** -0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.2 * noise)
        embedding = model.get_input_embeddings()
        if model.get_output_embeddings().weight is embedding.weight:
            embedding.weight.mul_(0.1)


def byte_tokenizer(special: Sequence[str]) -> Tokenizer:
    """A token per byte and per special text: GPT-2's form, as Qwen and InternVL3 have it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={text: i for i, text in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def llama_tokenizer(special: Sequence[str]) -> Tokenizer:
    """A token per character and per special text: Llama's form, which starts with `<s>`."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [chr(code) for code in range(33, 127)]
    tokenizer = Tokenizer(
        BPE(
            vocab={text: i for i, text in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", *special])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def save_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    files: Mapping[str, Mapping[str, Any]],
    **options: Any,
) -> Path:
    """Write a checkpoint as `transformers` does.

    files: JSON files by name, such as `preprocessor_config.json`.
    options: of `save_pretrained`.
    """
    model.save_pretrained(folder, **options)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields))
    return folder


def converted(
    folder: Path,
    theirs: torch.nn.Module,
    tokenizer: Tokenizer,
    files: Mapping[str, Mapping[str, Any]],
    **options: Any,
) -> Pair:
    """Save `theirs` under `folder`, convert what was saved, and load it.

    options: of `convert`.
    """
    theirs.eval()
    theirs.set_attn_implementation("eager")
    checkpoint = save_checkpoint(folder / "checkpoint", theirs, tokenizer, files)
    convert(checkpoint, folder / "model", **options)
    return Pair(theirs, load_model(folder / "model"), checkpoint)


def random_frames(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Frames uint8 [frames, height, width, 3] with structure at several scales."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (frames, -(-height // 8), -(-width // 8), 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noise = rng.integers(-40, 41, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def ask(
    pair: Pair,
    question: Question = QUESTION,
    call: Call = videos_5d,
    *,
    frames: np.ndarray | None = None,
    at_least: int = 500,
) -> Asked:
    """Put a question about a video to both sides.

    frames: uint8 [t, h, w, 3]; random ones where None.
    at_least: tokens that the prompt must have, so that errors in rotary embedding show.
    """
    ours = pair.ours
    if frames is None:
        frames = random_frames(ours.config.frames, 60, 80)
    pixel_values = ours.preprocess(frames)
    shape = VideoShape(pixel_values.shape, tuple(index / 2 for index in range(len(frames))))
    prompt = encode_prompt(ours.family.prompt(ours.config, question, shape), ours.tokenizer)
    assert prompt.layout.length >= at_least
    sample = Sample("0", "test", Path("none.mp4"), question)
    true_id = ours.tokenizer.token_to_id(question.answer)
    prepared = AskedPrompt(
        ours, sample, prompt, frames, shape.timestamps, pixel_values, true_id, repeated_frames=False
    )
    inputs = dict(call(prompt, pixel_values))
    if "inputs_embeds" not in inputs:
        inputs["input_ids"] = torch.from_numpy(prompt.ids.astype(np.int64))[None]
    return Asked(pair, prompt, prepared, inputs)


def decoder_layers(theirs: torch.nn.Module) -> torch.nn.ModuleList:
    """The decoder layers of a torch model."""
    return theirs.get_decoder().layers


def check_forward(asked: Asked) -> None:
    """Embeddings, the input of every layer, the normed output and all logits are equal."""
    theirs = asked.pair.theirs
    inputs: list[torch.Tensor] = []
    with torch.no_grad(), hooked(decoder_layers(theirs), lambda _, x, named: inputs.append(x[0])):
        out = theirs(**asked.inputs, output_hidden_states=True)
    model, embedded = asked.pair.ours.model, asked.embedded
    output, hidden, normed, logits = forward(model, embedded)
    video = asked.prompt.video_position
    assert len(video) > 0
    assert_close(hidden[0][video], inputs[0][0][video], "video embeddings")
    assert len(inputs) == len(hidden)
    for index, expected in enumerate(inputs):
        assert_close(hidden[index], expected[0], f"input of layer {index}")
    # The last of transformers' hidden states has gone through the final norm.
    assert_close(normed, out.hidden_states[-1][0], "normed output")
    assert_close(logits, out.logits[0], "logits")
    assert not np.allclose(normed, output), "the final norm does nothing"


@jax.jit
def forward(model, embedded):
    trace = model.decoder(embedded, keep=Keep(hidden=True))
    normed = model.decoder.norm(trace.output)
    return trace.output, trace.hidden, normed, model.decoder.project(normed)


def check_knockouts(
    asked: Asked, edges: Sequence[str] = EDGES, styles: Sequence[str] = ("center",)
) -> None:
    """Probabilities at the last position under knockouts, from both of our engines."""
    ours = asked.pair.ours
    layers, layout = ours.config.decoder.layers, asked.prompt.layout
    knockouts = [
        Knockout(parse_edges(edge), window)
        for edge in edges
        for style in styles
        for window in windows(1, style, layers)
    ]
    cuts = [cut_table(layout, knockout) for knockout in knockouts]
    expected = [
        probability(torch_logits(asked, dense(layout, ~cut), knockout.layers))
        for cut, knockout in zip(cuts, knockouts, strict=True)
    ]
    base = probability(torch_logits(asked, np.tri(layout.length, dtype=bool), range(layers)))
    for edge, changed in zip(edges, np.split(np.stack(expected), len(edges)), strict=True):
        moved = np.abs(changed - base).max()
        assert moved > 10 * ABSOLUTE, f"{edge}: its knockouts change too little to test anything"
    for engine in (full_forwards, planned):
        answers = engine(ours.model.decoder, asked.embedded, layout, knockouts)
        np.testing.assert_allclose(probability(answers.base), base, rtol=0, atol=ABSOLUTE)
        logits = answers.collect(len(knockouts))
        np.testing.assert_allclose(probability(logits), expected, rtol=0, atol=ABSOLUTE)


def torch_logits(asked: Asked, allowed: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """Logits at the last position with a position mask in the layers `layers`.

    allowed: bool [n, n], target x source.
    """
    theirs = asked.pair.theirs
    rows = np.tril(allowed)
    assert rows.any(axis=1).all(), "a row without any source: the two sides differ on purpose"
    blocked = torch.finfo(torch.float32).min
    mask = torch.from_numpy(np.where(rows, 0, blocked).astype(np.float32))[None, None]
    chosen = [decoder_layers(theirs)[layer] for layer in layers]

    def replace(layer: torch.nn.Module, positional: tuple, named: dict) -> tuple[tuple, dict]:
        # Theirs is causal, and cut at the window where there is one.
        return positional, named | {"attention_mask": torch.minimum(mask, named["attention_mask"])}

    with torch.no_grad(), hooked(chosen, replace):
        return theirs(**asked.inputs).logits[0, -1].numpy()


def check_generation(asked: Asked, tokens: int = 32) -> None:
    """Greedy decoding gives the same tokens, one for one."""
    theirs = asked.pair.theirs
    ids = asked.inputs.get("input_ids")
    theirs.generation_config.eos_token_id = None
    with torch.no_grad():
        out = theirs.generate(
            **asked.inputs,
            attention_mask=torch.ones((1, asked.prompt.layout.length), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
    # From embeddings, only the new tokens are returned.
    expected = out[0, 0 if ids is None else ids.shape[1] :].numpy()
    assert len(expected) == tokens
    assert len(set(expected)) > 2, "too few different tokens to test anything"
    ours = tokens_until(asked.pair.ours.model, asked.embedded, tokens, stop=())
    np.testing.assert_array_equal(ours, expected)


@contextmanager
def hooked(modules, hook):
    """Run `hook` before every forward of the modules."""
    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def probability(logits: Any) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def assert_close(ours: Any, expected: Any, what: str) -> None:
    """`||ours - expected|| <= 1e-4 ||expected||`."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape, f"{what}: {ours.shape} is not {expected.shape}"
    error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
    assert error <= RELATIVE, f"{what}: relative error {error:.2e}"
