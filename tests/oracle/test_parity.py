"""Parity with values recorded from the published PyTorch implementation.

`pytest tests/oracle --oracle-dir DIR` checks any folder in the format of the reference data.
"""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.edges import Knockout, count_edges, cut_table, dense, edge_mask, parse_edges
from flowjax.layer_windows import EDGE_SETS, windows
from flowjax.lens.project import generation_probability, lens_states, logit_lens
from flowjax.masks import DenseMask
from flowjax.models.attention import attend
from flowjax.models.checkpoint import load_model
from flowjax.models.embedded import Embedded
from flowjax.models.stack import layer_at
from flowjax.pathway import Pathway
from flowjax.sweeps.engine import planned
from flowjax.sweeps.reference import full_forwards, last_logits

RELATIVE = 1e-4
ABSOLUTE = 1e-4
ENGINES = {"reference": full_forwards, "planned": planned}
EDGES = [edge for edges in EDGE_SETS.values() for edge in edges]
"""The reference's mappings in its order."""

GROUPS = {
    "system": "system",
    "vision": "video",
    "question": "question",
    "question_without_options": "question_stem",
    "true_option": "true_option",
    "false_options": "false_options",
    "last": "last",
}
"""The reference's ranges and our names of them."""


def assert_close(ours, expected):
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    assert np.linalg.norm(ours - expected) <= RELATIVE * np.linalg.norm(expected)


def assert_same_tokens(ours, expected, probability):
    """Equal ids wherever the two most probable tokens differ by more than the tolerance."""
    top = -np.sort(-np.asarray(probability), axis=-1)
    clear = top[..., 0] - top[..., 1] > ABSOLUTE
    assert clear.any()
    np.testing.assert_array_equal(np.asarray(ours)[clear], np.asarray(expected)[clear])


def softmax(logits):
    return np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=-1))


def test_pixel_values(case):
    np.testing.assert_allclose(case.preprocessed, case.pixel_values, rtol=0, atol=1e-5)


def test_prompt(case):
    assert case.text.text == case.sample["prompt"]
    expanded = len(case["input_ids"]) == case["seq_len"]
    tokenizer = case.loaded.tokenizer
    ids = case.prompt.ids.tolist() if expanded else tokenizer.encode(case.text.text).ids
    assert ids == case["input_ids"].tolist()


def test_token_ranges(case):
    layout = case.prompt.layout
    assert layout.length == case["seq_len"]
    for theirs, ours in GROUPS.items():
        expected = np.sort(np.atleast_1d(case[f"range.{theirs}"]))
        np.testing.assert_array_equal(layout.positions(ours), expected, err_msg=theirs)
    frames = np.split(case["range.frames_flat"], np.cumsum(case["range.frames_len"])[:-1])
    for index, positions in enumerate(frames):
        np.testing.assert_array_equal(layout.positions(f"frame_{index}"), positions)
    np.testing.assert_array_equal(case.prompt.video_position, case["range.image_tokens"])


def test_vision(case):
    model = case.loaded.model
    features = jax.jit(lambda model, pixels: model.vision(pixels))(model, case.pixel_values)
    assert_close(features.reshape(case["vision_features"].shape), case["vision_features"])
    assert_close(
        jax.jit(lambda model, pixels: model.encode_video(pixels))(model, case.pixel_values),
        case["video_embeds"],
    )


def test_vision_without_attention_across_frames(case, tmp_path):
    """What the released code computes with any attention but the eager one: the default."""
    if "alt_block_diagonal.vision_features" not in case:
        pytest.skip("this family's attention does not depend on its implementation")
    shutil.copytree(case.loaded.path, tmp_path / "model")
    fields = json.loads((tmp_path / "model" / "config.json").read_text())
    del fields["_attn_implementation"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(fields))
    model = load_model(tmp_path / "model").model

    @jax.jit
    def run(model, ids, position, pixels):
        features = model.vision(pixels)
        video = model.projector(features)
        x = model.embed(ids, position, video)
        return features, video, model.decoder.logits(model.decoder(Embedded.of(x)).output[-1:])[0]

    features, video, logits = run(
        model, case.prompt.ids, case.prompt.video_position, case.pixel_values
    )
    expected = case["alt_block_diagonal.vision_features"]
    assert_close(features.reshape(expected.shape), expected)
    assert_close(video, case["alt_block_diagonal.video_embeds"])
    assert_close(logits, case["alt_block_diagonal.logits_last"])


def test_decoder(case):
    assert_close(case.embedded.x, case["merged_embeds"])
    after = jnp.concatenate([case.trace.hidden[1:], case.trace.output[None]])
    for ours, expected in zip(after, case["hidden_after_layer"], strict=True):
        assert_close(ours, expected)
    decoder = case.loaded.model.decoder
    assert_close(decoder.norm(case.trace.output), case["final_norm"])
    logits = decoder.logits(case.trace.output[-1:])[0]
    assert_close(logits, case["logits_last"])
    assert int(jnp.argmax(logits)) == case["base_answer_id"]
    letter = case.loaded.tokenizer.token_to_id(case.sample["gt"])
    assert letter == case["gt_id"]
    np.testing.assert_allclose(softmax(logits), case["probs_last"], rtol=0, atol=ABSOLUTE)


def test_masks(case):
    layout = case.prompt.layout
    for index, edge in enumerate(EDGES):
        cut = cut_table(layout, Knockout(parse_edges(edge), (0,)))
        assert count_edges(layout, cut) == case["ko.n_blocked_edges"][index], edge
        np.testing.assert_array_equal(dense(layout, ~cut), case["ko.allowed"][index], edge)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "style", "width"),
    [
        ("center.w1", "center", 1),
        ("center.w3", "center", 3),
        ("inverse.w3", "inverse", 3),
        ("top_down", "top_down", 9),
        ("bottom_up", "bottom_up", 9),
    ],
)
def test_knockouts(case, engine, name, style, width):
    knockouts = [
        Knockout(parse_edges(edge), window)
        for edge in EDGES
        for window in windows(width, style, case.layers)
    ]
    answers = ENGINES[engine](
        case.loaded.model.decoder, case.embedded, case.prompt.layout, knockouts
    )
    assert_close(answers.base, case["logits_last"])
    logits = answers.collect(len(knockouts)).reshape(len(EDGES), case.layers, -1)
    ours = softmax(logits)
    for theirs, token in (("prob_base", case["base_answer_id"]), ("prob_gt", case["gt_id"])):
        np.testing.assert_allclose(
            ours[..., token], case[f"ko.{name}.{theirs}"], rtol=0, atol=ABSOLUTE
        )
    np.testing.assert_allclose(ours.max(-1), case[f"ko.{name}.prob_max"], rtol=0, atol=ABSOLUTE)
    assert_same_tokens(logits.argmax(-1), case[f"ko.{name}.argmax"], ours)
    if f"ko.{name}.logits_last" in case:
        for row, expected in zip(
            logits.reshape(len(knockouts), -1),
            case[f"ko.{name}.logits_last"].reshape(len(knockouts), -1),
            strict=True,
        ):
            assert_close(row, expected)


def pathway_of(case):
    ranges = case.meta["pathway_layer_ranges"]
    return Pathway(
        name="recorded",
        form="paper",
        layers=case.layers,
        cross_frame=tuple(ranges["inter_frame"]),
        video_to_question=tuple(ranges["video_to_question"]),
        question_to_last=tuple(ranges["question_to_last"]),
    )


def test_pathway(case):
    layout = case.prompt.layout
    heads = case.loaded.config.decoder.heads
    mask = edge_mask(layout, pathway_of(case).knockouts(layout), layers=case.layers, heads=heads)
    table = np.asarray(mask.allowed)[:, 0]
    np.testing.assert_array_equal(dense(layout, table), case["pathway.allowed"])
    counts = [count_edges(layout, layer) for layer in table]
    np.testing.assert_array_equal(counts, case["pathway.edges_per_layer"])
    assert sum(counts) == case["pathway.edges_total"]
    everything = count_edges(layout, np.ones_like(table[0])) * case.layers
    assert everything == case["pathway.edges_baseline_total"]
    logits = jax.jit(last_logits)(case.loaded.model.decoder, case.embedded, mask)
    assert_close(logits, case["pathway.logits_last"])
    probability = softmax(logits)
    assert probability[case["base_answer_id"]] == pytest.approx(
        float(case["pathway.prob_base"]), abs=ABSOLUTE
    )
    assert_same_tokens(logits.argmax(), case["pathway.argmax"], probability)


def test_logit_lens(case):
    decoder = case.loaded.model.decoder
    states = lens_states(decoder, case.trace)[:, case["range.vision"]]
    top = logit_lens(decoder, states.reshape(-1, states.shape[-1]))
    shape = case["lens.ids"].shape
    probability = np.asarray(top.probability).reshape(shape)
    np.testing.assert_allclose(probability, case["lens.probs"], rtol=0, atol=ABSOLUTE)
    assert_same_tokens(
        np.asarray(top.ids).reshape(shape)[..., 0], case["lens.ids"][..., 0], probability
    )


@pytest.mark.parametrize("form", ["raw", "norm"])
def test_generation_probability(case, form):
    if f"genprob.{form}.probs" not in case:
        pytest.skip(f"this family's reference does not record the {form!r} form")
    probability = np.asarray(
        generation_probability(
            case.loaded.model.decoder,
            case.trace,
            case.prompt.layout.length - 1,
            normed=form == "norm",
        )
    )
    chosen = probability[:, case["genprob.ids"]]
    np.testing.assert_allclose(chosen, case[f"genprob.{form}.probs"], rtol=0, atol=ABSOLUTE)
    top = -np.sort(-probability, axis=-1)[:, :10]
    np.testing.assert_allclose(top, case[f"genprob.{form}.top10_probs"], rtol=0, atol=ABSOLUTE)
    assert_same_tokens(probability.argmax(-1), case[f"genprob.{form}.top10_ids"][:, 0], probability)


def fully_masked_cases(case):
    """The two extra mappings as position masks: every key up to `last` cut from a set of rows."""
    layout = case.prompt.layout
    for targets in (layout.positions("last"), layout.positions("question")):
        allowed = np.tri(layout.length, dtype=bool)
        allowed[targets] = False
        yield targets, allowed


def test_fully_masked_rows(case):
    """A fully masked row gives zeros here and a uniform mean over all keys in the reference.

    With our attention output replaced by that mean in exactly the fully masked rows and nowhere
    else, the reference's logits follow. The rest of the model is the same.
    """
    model = case.loaded.model
    decoder = model.decoder
    position = jnp.arange(case.prompt.layout.length)

    @jax.jit
    def forward(model, embedded, allowed, uniform, blocked_layer):
        rotary = model.decoder.config.rope(embedded.rope_position, len(position))

        def step(x, index):
            layer = layer_at(model.decoder.layers, index)
            own = layer.sources(x, position, rotary)
            mask = DenseMask(jnp.where(index == blocked_layer, allowed, True)[None])
            output = attend(layer.queries(x, rotary), position, [own], mask).output
            repeats = output.shape[1] // own.value.shape[1]
            mean = jnp.repeat(own.value.mean(0), repeats, axis=0)
            replace = (index == blocked_layer) & uniform
            zero = jnp.all(output == 0, axis=(1, 2))
            return layer.finish(x, jnp.where(replace[:, None, None], mean, output)), zero

        x, zero = jax.lax.scan(step, embedded.x, jnp.arange(model.decoder.config.layers))
        return model.decoder.logits(x[-1:])[0], zero

    for mapping, (targets, allowed) in enumerate(fully_masked_cases(case)):
        dead = np.zeros(len(position), bool)
        dead[targets] = True
        for layer in range(decoder.config.layers):
            logits, zero = forward(model, case.embedded, allowed, dead, layer)
            np.testing.assert_array_equal(np.flatnonzero(zero[layer]), targets)
            assert_close(logits, case["extra.center.w1.logits_last"][mapping, layer])
