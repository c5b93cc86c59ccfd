"""`flowjax lens` through the command line, and its summary by hand."""

import numpy as np
import pyarrow as pa
import pytest

from flowjax.lens.words import KINDS
from flowjax_experiments.lens import Lens, word_shares
from tests.experiments.checks import (
    array_of,
    assert_redrawn,
    assert_refused,
    line_of,
    rows_of,
    sample_on_page,
    settings_of,
)

LAYERS, POSITIONS = 8, 32


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "own.txt"
    path.write_text("[spatial]\nwhere\n[temporal]\nA B\n")
    return path


@pytest.fixture(scope="module")
def ran(flowjax, answering, benchmark, own, tmp_path_factory):
    out = tmp_path_factory.mktemp("lens") / "run"
    result = flowjax(
        "lens", answering, "--data", benchmark, "--out", out, "--through", "output",
        "--top-k", 4, "--words", own, "--layer", 7, "--layer", 0,
    )  # fmt: skip
    assert result.code == 0, result.err
    return out, result.out


def test_rows(ran):
    out, _ = ran
    rows = rows_of(out)
    assert len(rows) == 8 * LAYERS * POSITIONS  # every sample, whatever its answer
    first = [row for row in rows if (row["sample_id"], row["layer"]) == ("colour/0", 0)]
    places = [(row["frame"], row["row"], row["column"]) for row in first]
    assert places == list(np.ndindex(8, 2, 2))
    positions = [row["position"] for row in first]
    assert positions == list(range(positions[0], positions[0] + POSITIONS))
    words = settings_of(out)["words"]
    assert set(words) == {"colour", "direction"}
    for row in rows:
        assert len(row["token_ids"]) == len(row["tokens"]) == len(row["probabilities"]) == 4
        texts = [token.strip(".,?!:() ").lower() for token in row["tokens"]]
        for kind in KINDS:
            listed = words[row["task"]][kind]
            ranks = [rank for rank, text in enumerate(texts) if text in listed]
            assert row[f"{kind}_rank"] == (ranks[0] if ranks else -1), row["tokens"]
    assert {row["temporal_rank"] for row in rows} > {-1, 0}


def test_the_output_head_ends_in_letters(ran):
    """The model's head knows A to D only; all other tokens are equal, the first an unknown one."""
    tops = {row["tokens"][0] for row in rows_of(ran[0])}
    assert {*"ABCD"} <= tops <= {*"ABCD", "<unk>"}


def test_summary_and_figures_need_no_model(flowjax, ran):
    out, printed = ran
    rows = [row for row in rows_of(out) if row["layer"] == 4]
    share = 100 * np.mean([row["temporal_rank"] >= 0 for row in rows])
    table = printed[printed.index("temporal word") :]
    assert f" {share:.1f} " in line_of(table, 5)
    names = {path.name for path in (out / "figures").iterdir()}
    overlays = {f"overlay-00-layer-{layer:02d}.png" for layer in (0, 7)} | {"layers-00.png"}
    assert names == {"words.png", *overlays}
    assert_redrawn(flowjax, out, printed)


def test_the_reference_lens_is_the_default(flowjax, answering, benchmark, tmp_path):
    out = tmp_path / "run"
    asked = ["lens", answering, "--data", benchmark, "--limit", 1, "--task", "colour"]
    result = flowjax(*asked, "--out", out, "--drawn", 0)
    assert result.code == 0, result.err
    assert settings_of(out)["through"] == "input"
    rows = rows_of(out)
    assert {len(row["tokens"]) for row in rows} == {10}
    assert len({row["tokens"][0] for row in rows}) > 4
    assert not list((out / "frames").iterdir())
    assert [path.name for path in (out / "figures").iterdir()] == ["words.png"]

    part = next((out / "parts").iterdir())
    written = part.stat().st_mtime_ns
    more = flowjax(*asked, "--out", out, "--layer", 2)  # figures are not among the settings
    assert more.code == 0, more.err
    assert part.stat().st_mtime_ns == written
    assert (out / "figures" / "overlay-00-layer-02.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--through", "head"], ["'head'", "input or output"]),
        (["--top-k", 0], ["--top-k 0"]),
        (["--layer", 8], ["--layer 8", "0 to 7"]),
        (["--layer", -1], ["--layer -1", "0 to 7"]),
        (["--words", "missing.txt"], ["missing.txt"]),
        (["--drawn", -1], ["--drawn -1"]),
    ],
)
def test_bad_options_are_refused(flowjax, answering, benchmark, options, words, tmp_path):
    asked = ["lens", answering, "--data", benchmark, "--out", tmp_path / "run"]
    assert_refused(flowjax(*asked, *options), *words)
    assert not (tmp_path / "run").exists()


def test_shares_by_hand():
    """Six samples, two layers, four positions each; 1 in 50 tokens is a word, of 3 on top."""
    spatial = {}
    for first, second in ("ab", "cd", "ef"):
        spatial |= {(first, 0): 1, (first, 1): 3, (second, 0): 0, (second, 1): 2}
    rows = []
    for (sample, layer), hits in spatial.items():
        for position in range(4):
            row = dict.fromkeys(Lens.SCHEMA.names, "x")
            row |= dict.fromkeys(("num_frames", "video_tokens"), 8)
            row |= dict.fromkeys(("base_id", "new_id"), 7)
            row |= {"sample_id": sample, "layer": layer, "position": position, "correct": True}
            row |= dict.fromkeys(("frame", "row", "column"), 0)
            row |= {"token_ids": [1, 2, 3], "tokens": ["a"] * 3, "probabilities": [0.1] * 3}
            row |= {"spatial_rank": position if position < hits else -1, "temporal_rank": -1}
            row |= {"spatial_vocabulary": 0.02, "temporal_vocabulary": 0.0}
            rows.append(row)
    found = word_shares(pa.Table.from_pylist(rows, Lens.SCHEMA))
    by_place = {(at.kind, at.layer): at for at in found}
    assert len(by_place) == 4
    assert by_place["spatial", 1].share.mean == pytest.approx(1 / 8)
    late = by_place["spatial", 2]
    assert late.share.mean == pytest.approx(5 / 8)
    # All samples gain half: the paired interval is a point.
    assert (late.change.mean, late.change.low, late.change.high) == (0.5, 0.5, 0.5)
    assert late.change.p == 2 / 2**6
    assert late.change.is_effect
    assert by_place["temporal", 2].share.mean == 0


def test_words_on_a_page(flowjax, ran, tmp_path):
    out, _ = ran
    one = sample_on_page(flowjax, tmp_path, out)
    assert one["label"] == "colour/0" and "(A)" in one["prompt"]
    assert len(one["frames"]) == 8 and one["frames"][0].startswith("data:image/jpeg;base64,")
    top, probability = (array_of(one["words"][name]) for name in ("top", "probability"))
    assert top.shape == probability.shape == (LAYERS, 8, 2, 2, 3)
    for row in rows_of(out):
        if row["sample_id"] == "colour/0":
            at = row["layer"], row["frame"], row["row"], row["column"]
            assert [one["words"]["texts"][i] for i in top[at]] == row["tokens"][:3]
            np.testing.assert_allclose(
                probability[at] / 255, row["probabilities"][:3], atol=1 / 255
            )
