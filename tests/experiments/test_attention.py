"""`flowjax attention` through the command line."""

import numpy as np
import pytest

from flowjax.errors import FlowjaxError
from flowjax_experiments.attention import Attention, parse_layers
from tests.experiments.checks import (
    array_of,
    assert_redrawn,
    assert_refused,
    line_of,
    rows_of,
    sample_on_page,
)

LAYERS, HEADS = 8, 4


@pytest.fixture(scope="module")
def ran(flowjax, answering, benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("attention") / "run"
    result = flowjax(
        "attention", answering, "--data", benchmark, "--samples", "all", "--limit", 2,
        "--out", out, "--target", "option_B", "--head", "3", "--cut", "video->option_B",
        "--cut-layers", "2-4", "--layer", 2,
    )  # fmt: skip
    assert result.code == 0, result.err
    return out, result.out


def by_place(out):
    rows = rows_of(out)
    keys = ("sample_id", "knockout", "head", "layer", "frame")
    found = {tuple(row[key] for key in keys): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_rows(ran):
    found = by_place(ran[0])
    assert len(found) == 4 * 2 * 2 * LAYERS * 8
    for (sample, knockout, head, layer, frame), row in found.items():
        assert (row["rows"], row["columns"], len(row["weights"])) == (2, 2, 4)
        # In this family a frame is its grid and nothing else.
        assert row["attention"] == pytest.approx(sum(row["weights"]), abs=1e-6)
        if knockout and 2 <= layer <= 4:
            assert row["attention"] == 0
        else:
            assert row["attention"] > 0
        base = found[sample, False, head, layer, frame]
        if knockout and layer < 2:
            assert row["weights"] == pytest.approx(base["weights"], abs=1e-6)
        assert row["edge"] == ("video->option_B" if knockout else "")
        assert (row["cut_from"], row["cut_to"]) == ((2, 4) if knockout else (-1, -1))
    later = [
        abs(row["attention"] - found[sample, False, head, layer, frame]["attention"])
        for (sample, knockout, head, layer, frame), row in found.items()
        if knockout and layer > 4
    ]
    assert max(later) > 1e-4  # what was cut changes what is read later


def test_summary_and_figures_need_no_model(flowjax, ran):
    out, printed = ran
    assert "cut: video" in printed and "in layers 3-5, counted from 1" in printed
    rows = [row for row in rows_of(out) if row["head"] == -1 and row["layer"] == 6]
    base, cut = (
        100 * sum(row["attention"] for row in rows if row["knockout"] is state) / 4
        for state in (False, True)
    )
    line = line_of(printed, 7)
    assert f" {base:.2f} " in line and f" {cut:.2f} " in line and f" {cut - base:+.2f} " in line
    names = {path.name for path in (out / "figures").iterdir()}
    heads = {f"frames-00-{name}.png" for name in ("mean", "head-03")}
    assert names == {"attention.png", *heads}
    assert_redrawn(flowjax, out, printed)


def test_all_heads_and_their_mean(flowjax, answering, benchmark, tmp_path):
    out = tmp_path / "run"
    asked = ["attention", answering, "--data", benchmark, "--limit", 1, "--samples", "all"]
    result = flowjax(*asked, "--out", out, "--head", "all", "--drawn", 0)
    assert result.code == 0, result.err
    found = by_place(out)
    assert len(found) == 2 * (1 + HEADS) * LAYERS * 8
    for (sample, _, head, layer, frame), row in found.items():
        if head == -1:
            heads = [found[sample, False, h, layer, frame]["weights"] for h in range(HEADS)]
            np.testing.assert_allclose(row["weights"], np.mean(heads, 0), atol=1e-7)
    assert "edge cut" not in result.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "option_Z"], ["'option_Z'", "option_A"]),
        (["--head", "4"], ["--head 4", "0 to 3"]),
        (["--head", "middle"], ["'middle'"]),
        (["--cut", "video"], ["source->target"]),
        (["--cut", "last->video"], ["removes no edge"]),
        (["--cut-layers", "1-2"], ["--cut", "absent"]),
        (["--cut", "video->last", "--cut-layers", "3-8"], ["'3-8'", "0 to 7"]),
        (["--layer", "8"], ["--layer 8", "0 to 7"]),
    ],
)
def test_bad_options_are_refused(flowjax, answering, benchmark, options, words, tmp_path):
    asked = ["attention", answering, "--data", benchmark, "--out", tmp_path / "run"]
    assert_refused(flowjax(*asked, *options), *words)
    assert not (tmp_path / "run").exists()


def test_layers_are_read_from_0():
    assert parse_layers("5-19", 32) == tuple(range(5, 20))
    assert parse_layers(" 3 ", 8) == (3,)
    for text in ("3-2", "1-8", "1,2", "-3", "a-b", ""):
        with pytest.raises(FlowjaxError, match="FIRST-LAST"):
            parse_layers(text, 8)


def test_a_cut_without_layers_is_in_all():
    _, knockout = Attention(cut="cross_frame+video->last").read(5, 2)
    assert knockout is not None
    assert (knockout.layers, knockout.name) == (tuple(range(5)), "cross_frame+video->last")


def test_one_token_and_the_largest_of_any_head(flowjax, answering, benchmark, tmp_path):
    asked = ["attention", answering, "--data", benchmark, "--limit", 1, "--samples", "all"]
    found = {}
    for target, head in (("option_B", "all"), ("option_B[1]", "max,0")):
        out = tmp_path / head
        result = flowjax(*asked, "--out", out, "--target", target, "--head", head, "--drawn", 0)
        assert result.code == 0, result.err
        found[head] = by_place(out)
    assert {key[2] for key in found["max,0"]} == {-2, -1, 0}
    for (sample, cut, head, layer, frame), row in found["max,0"].items():
        assert row["target"] == "option_B[1]"
        if head == -2:
            for other in (-1, 0):
                weights = found["max,0"][sample, cut, other, layer, frame]["weights"]
                assert (np.array(row["weights"]) >= np.array(weights) - 1e-7).all()
    # The group's attention is the mean of its tokens', so one token's is another.
    differ = [
        abs(row["attention"] - found["all"][key]["attention"])
        for key, row in found["max,0"].items()
        if key[2] == -1
    ]
    assert max(differ) > 1e-4
    refused = flowjax(*asked, "--out", tmp_path / "run", "--target", "option_B[99]")
    assert_refused(refused, "option_B[99]")


def test_attention_on_a_page(flowjax, ran, tmp_path):
    out, _ = ran
    one = sample_on_page(flowjax, tmp_path, out)
    assert [seen["label"] for seen in one["attention"]] == [
        "option B, mean over heads", "option B, mean over heads", "option B, head 3",
        "option B, head 3",
    ]  # fmt: skip
    assert [seen["cut"] for seen in one["attention"][:2]] == [
        "", "video \N{RIGHTWARDS ARROW} option B in layers 3-5",
    ]  # fmt: skip
    found = by_place(out)
    for seen, (knockout, head) in zip(
        one["attention"], [(False, -1), (True, -1), (False, 3), (True, 3)], strict=True
    ):
        root = array_of(seen["root"])
        assert root.shape == (LAYERS, 8, 2, 2)
        for layer, most in enumerate(seen["most"]):
            rows = [found[one["label"], knockout, head, layer, frame] for frame in range(8)]
            weights = np.array([row["weights"] for row in rows]).reshape(8, 2, 2)
            np.testing.assert_allclose((root[layer] / 255) ** 2 * most, weights, atol=most / 255)
            np.testing.assert_allclose(seen["frames"][layer], weights.sum((1, 2)), atol=1e-4)
