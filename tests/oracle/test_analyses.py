"""Parity of the analyses' rows with values recorded from the published PyTorch implementation.

What the commands call is called here, on the recorded pixel values.
"""

from pathlib import Path

import numpy as np
import pytest

from flowjax.asked.asked import Asked
from flowjax.data.sample import Sample
from flowjax.pathway import Pathway, write_pathway
from flowjax_experiments.lens import Lens, word_ids
from flowjax_experiments.pathways.evaluate import Evaluate, answers
from flowjax_experiments.probability import Probability
from tests.experiments.checks import rows_of_sample

ABSOLUTE = 1e-4
RELATIVE = 1e-4


@pytest.fixture
def prepared(case) -> Asked:
    sample = Sample("recorded", "", Path("recorded.mp4"), case.question)
    timestamps = tuple(float(index) for index in range(len(case["frames"])))
    return Asked(
        case.loaded,
        sample,
        case.prompt,
        case["frames"],
        timestamps,
        case.pixel_values,
        int(case["gt_id"]),
        repeated_frames=False,
    )


def close(ours, expected):
    np.testing.assert_allclose(np.array(ours), np.array(expected), rtol=0, atol=ABSOLUTE)


def same_tokens(ours, expected, probability):
    """Equal ids in the places whose probability stands out from those beside it."""
    ours, expected, probability = map(np.asarray, (ours, expected, probability))
    gap = -np.diff(probability, axis=-1)
    wide = np.full((*probability.shape[:-1], 1), np.inf)
    before = np.concatenate([wide, gap], axis=-1)
    # What follows the last place is not known.
    after = np.concatenate([gap, np.zeros_like(wide)], axis=-1)
    clear = np.minimum(before, after) > ABSOLUTE
    assert clear.any()
    np.testing.assert_array_equal(ours[clear], expected[clear])


@pytest.mark.parametrize("form", ["raw", "norm"])
def test_generation_probability(case, prepared, form):
    if f"genprob.{form}.probs" not in case:
        pytest.skip(f"the recorded values do not have the {form!r} form")
    table = rows_of_sample(Probability(), prepared)
    rows = [row for row in table.to_pylist() if row["normed"] == (form == "norm")]
    assert [row["layer"] for row in rows] == list(range(case.layers))
    recorded = case["genprob.ids"].tolist()
    columns = [recorded.index(token) for token in case["genprob.option_ids"]]
    expected = case[f"genprob.{form}.probs"][:, columns]
    close([row["probabilities"] for row in rows], expected)
    is_true = case["genprob.option_is_true"]
    close([row["true_probability"] for row in rows], expected[:, is_true][:, 0])
    close([row["false_probability"] for row in rows], expected[:, ~is_true].mean(-1))
    top = case[f"genprob.{form}.top10_probs"]
    close([row["top_probabilities"] for row in rows], top)
    same_tokens([row["top_ids"] for row in rows], case[f"genprob.{form}.top10_ids"], top)
    assert rows[0]["base_answer"] == case.sample["base_answer"]
    assert rows[0]["true_answer"] == case.sample["gt"]
    assert rows[0]["correct"] == (case.sample["base_answer"] == case.sample["gt"])


def test_logit_lens(case, prepared):
    assert len(word_ids(case.loaded, [""], None)[""]["temporal"]) > 0
    table = rows_of_sample(Lens(), prepared)
    positions = np.sort(case["range.vision"])
    np.testing.assert_array_equal(table["position"], np.tile(positions, case.layers))
    np.testing.assert_array_equal(table["layer"], np.repeat(np.arange(case.layers), len(positions)))
    shape = case["lens.ids"].shape
    ours = np.array(table["probabilities"].to_pylist()).reshape(shape)
    close(ours, case["lens.probs"])
    ids = np.array(table["token_ids"].to_pylist()).reshape(shape)
    same_tokens(ids, case["lens.ids"], case["lens.probs"])
    frames = np.concatenate(
        [np.full(count, i) for i, count in enumerate(case["range.frames_len"].tolist())]
    )
    np.testing.assert_array_equal(table["frame"], np.tile(frames, case.layers))
    placed = table["row"].to_numpy() >= 0
    seen = set(table["position"].to_numpy()[placed].tolist())
    assert seen == set(case["range.image_tokens"].tolist())


def test_pathway(case, prepared, tmp_path):
    ranges = case.meta["pathway_layer_ranges"]
    pathway = Pathway(
        "recorded",
        "paper",
        case.layers,
        tuple(ranges["inter_frame"]),
        tuple(ranges["video_to_question"]),
        tuple(ranges["question_to_last"]),
    )
    full, only = answers(prepared, [pathway], seeds=0)
    for ours, expected in ((full.logits, "logits_last"), (only.logits, "pathway.logits_last")):
        error = np.linalg.norm(np.asarray(ours) - case[expected])
        assert error <= RELATIVE * np.linalg.norm(case[expected])
    edges = case["pathway.edges_total"] / case["pathway.edges_baseline_total"]
    assert only.kept == pytest.approx(edges, rel=1e-12)

    write_pathway(tmp_path / "recorded.json", pathway)
    asked = Evaluate(pathway=str(tmp_path / "recorded.json"), seeds=1)
    rows = rows_of_sample(asked, prepared).to_pylist()
    assert [row["kind"] for row in rows] == ["full", "pathway", "random"]
    close(rows[0]["true_probability"], case["probs_last"][case["gt_id"]])
    close(rows[0]["base_probability"], case["probs_last"][case["base_answer_id"]])
    close(rows[1]["true_probability"], case["pathway.prob_gt"])
    close(rows[1]["base_probability"], case["pathway.prob_base"])
    decode = case.loaded.tokenizer.decode
    assert rows[1]["new_answer"] == decode([int(case["pathway.argmax"])]).strip()
    # NOTES 17: of every layer's N (N + 1) / 2 edges, floor(ratio * that) are cut.
    total = case["seq_len"] * (case["seq_len"] + 1) // 2
    cut = np.floor((1 - rows[1]["kept_fraction"]) * total)
    assert rows[2]["kept_fraction"] == pytest.approx(1 - cut / total, abs=1e-12)
