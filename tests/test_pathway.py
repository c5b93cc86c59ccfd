import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowjax.edges import count_edges, edge_counts, edge_mask, edge_table
from flowjax.errors import FlowjaxError
from flowjax.layout import TokenLayout
from flowjax.pathway import (
    KEPT,
    PRESETS,
    Pathway,
    default_pathway,
    kept_fraction,
    preset,
    random_edges,
    read_pathway,
    write_pathway,
)
from tests.strategies import layouts


def prompt(system, frame, before, question, options, after, frames=8):
    names = ["system"] * system
    names += [f"frame_{index}" for index in range(frames) for _ in range(frame)]
    names += ["instruction"] * before + ["question_stem"] * question
    names += [f"option_{letter}" for letter in "ABCD" for _ in range(options)]
    return TokenLayout.from_cells([*names, *["instruction"] * (after - 1), "last"], "option_B")


# Text tokens of the published prompts (system, between video and question, after the options) and
# a question of 12 with four options of 8. VideoLLaMA3's frames carry their time and a comma.
PUBLISHED = {
    "llava-next-7b": (prompt(50, 144, 5, 12, 8, 16), 42),
    "llava-next-13b": (prompt(50, 144, 5, 12, 8, 16), 37),
    "mini-internvl-4b": (prompt(50, 256, 6, 12, 8, 16), 40),
    "videollama3-7b": (prompt(3, 144 + 8, 1, 12, 8, 21), 58),
}


@pytest.mark.parametrize("name", PRESETS)
def test_published_kept_fractions(name):
    layout, percent = PUBLISHED[name]
    pathway = preset(name, "paper")
    sizes = {"layers": pathway.layers, "heads": 1}
    kept = kept_fraction(layout, pathway.knockouts(layout), **sizes)
    assert 100 * kept == pytest.approx(percent, abs=2)
    strict = dataclasses.replace(pathway, form="strict")
    assert kept_fraction(layout, strict.knockouts(layout), **sizes) < kept


def test_kept_fraction_is_that_of_the_written_out_mask():
    layout = prompt(3, 4, 2, 3, 2, 3)
    pathway = Pathway("p", "strict", 4, (0,), (1, 2), (3,))
    knockouts = pathway.knockouts(layout)
    mask = edge_mask(layout, knockouts, layers=4, heads=2)
    everything = jnp.arange(layout.length)
    rows = [mask.at(layer).rows(everything, everything) for layer in range(4)]
    of_causal = np.mean([np.sum(layer) / np.tri(layout.length).sum() for layer in rows])
    assert kept_fraction(layout, knockouts, layers=4, heads=2) == pytest.approx(of_causal)
    assert edge_counts(layout).sum() == count_edges(layout, np.ones((len(layout.cells),) * 2, bool))


def allowed(layout, pathway):
    """Whether target may read source in a layer, by group names."""
    table = edge_table(layout, pathway.knockouts(layout), layers=pathway.layers, heads=1)[:, 0]

    def ask(source, target):
        cells = np.ix_(range(pathway.layers), layout.cells_of(target), layout.cells_of(source))
        return [layer.any() for layer in table[cells]]

    return ask


def test_the_forms_differ_in_the_instruction_only():
    layout = prompt(3, 4, 2, 3, 2, 3)
    pathway = Pathway("p", "paper", 6, (1,), (1, 2), (3, 4))
    paper, strict = (
        allowed(layout, dataclasses.replace(pathway, form=form)) for form in ("paper", "strict")
    )
    every = [True] * 6
    for ask in (paper, strict):
        assert ask("video", "question_stem") == [layer in (1, 2) for layer in range(6)]
        assert ask("option_B", "last") == [layer in (3, 4) for layer in range(6)]
        assert ask("frame_0", "frame_1") == [layer == 1 for layer in range(6)]
        assert ask("frame_1", "frame_1") == [layer <= 2 for layer in range(6)]
        assert ask("question_stem", "option_A") == [layer <= 4 for layer in range(6)]
        assert not any(ask("video", "last")) and not any(ask("last", "last"))
        for target in ("video", "question", "instruction", "last"):
            assert ask("system", target) == every
    assert paper("video", "instruction") == paper("instruction", "last") == every
    assert paper("question", "instruction") == paper("instruction", "question") == every
    assert strict("video", "instruction") == strict("video", "question")
    assert strict("instruction", "last") == strict("question", "last")
    assert strict("question", "instruction") == strict("question", "question")


def test_last_to_last_can_be_kept():
    layout = prompt(3, 4, 2, 3, 2, 3)
    ask = allowed(layout, Pathway("p", "strict", 3, (), (0,), (1,), last_to_last=(1, 2)))
    assert ask("last", "last") == [False, True, True]


@pytest.mark.parametrize("form", ["paper", "strict"])
def test_edges_that_the_prompt_lacks_are_left_out(form):
    pathway = Pathway("p", form, 3, (0,), (1,), (2,))
    one_frame = TokenLayout.from_cells(["system", "frame_0", "frame_0", "question_stem", "last"])
    names = {knockout.name for knockout in pathway.knockouts(one_frame)}
    assert "cross_frame" not in names and "video->question" in names
    edge_table(one_frame, pathway.knockouts(one_frame), layers=3, heads=1)
    after = TokenLayout.from_cells(["question_stem", "frame_0", "frame_1", "instruction", "last"])
    names = "+".join(knockout.name for knockout in pathway.knockouts(after))
    assert "video->question" not in names
    assert ("video->instruction" in names) == (form == "strict")
    with pytest.raises(FlowjaxError, match=r"'question'"):
        pathway.knockouts(TokenLayout.from_cells(["frame_0", "frame_1", "last"]))


@settings(max_examples=20)
@given(st.data(), st.sampled_from(["paper", "strict"]))
def test_every_pathway_applies_to_every_prompt(data, form):
    layout = data.draw(layouts())
    kept = st.sets(st.integers(0, 4)).map(lambda layers: tuple(sorted(layers)))
    pathway = Pathway("p", form, 5, *(data.draw(kept) for _ in KEPT))
    table = edge_table(layout, pathway.knockouts(layout), layers=5, heads=1)
    assert table[..., layout.cells_of("system")].all()


def test_scaled():
    small = preset("llava-next-7b", "strict").scaled(12)
    assert small.layers == 12 and small.form == "strict" and "12 layers" in small.name
    assert small.cross_frame == (2, 3, 4, 5)
    assert small.video_to_question == (2, 3, 4, 5, 6)
    assert small.question_to_last == (6, 7, 8)
    assert small.scaled(12) is small


def test_the_default_is_the_familys():
    assert default_pathway("pllava", 40, "paper") == PRESETS["llava-next-13b"]
    assert default_pathway("internvl", 32, "paper") == PRESETS["mini-internvl-4b"]
    assert default_pathway("videollama3", 28, "strict") == preset("videollama3-7b", "strict")
    scaled = default_pathway("qwen3_vl", 36, "strict")
    assert scaled == preset("llava-next-7b", "strict").scaled(36)


def test_read_what_was_written(tmp_path):
    path = tmp_path / "new" / "pathway.json"
    pathway = dataclasses.replace(preset("videollama3-7b", "strict"), last_to_last=(0, 1))
    write_pathway(path, pathway)
    assert read_pathway(path, 28) == pathway
    assert [file.name for file in path.parent.iterdir()] == ["pathway.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "loose"}, "pathway form 'loose': choose one of paper, strict"),
        ({"name": 3}, "name is 3; it must be text"),
        ({"layers": "3"}, "layers is '3'; it must be a whole number"),
        ({"layers": 4}, "is for 4 layers; the model has 3"),
        ({"cross_frame": [3]}, "cross_frame names layer 3; its layers are 0 to 2"),
        ({"question_to_last": "1-2"}, "question_to_last is '1-2'; it must be a list of layers"),
        ({"question_to_last": [True]}, "it must be a list of layers"),
        ({"cross_frames": []}, "field cross_frames is unknown"),
        ({"video_to_question": None}, "video_to_question is None; it must be a list"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, change, message):
    path = tmp_path / "pathway.json"
    fields = dataclasses.asdict(Pathway("p", "strict", 3, (0,), (1,), (2,)))
    path.write_text(json.dumps(fields | change))
    with pytest.raises(FlowjaxError, match=message) as caught:
        read_pathway(path, 3)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_missing_field_and_a_missing_file(tmp_path):
    path = tmp_path / "pathway.json"
    with pytest.raises(FlowjaxError, match="is missing"):
        read_pathway(path, 3)
    path.write_text(json.dumps({"name": "p", "form": "paper", "layers": 3}))
    with pytest.raises(FlowjaxError, match="field cross_frame is missing"):
        read_pathway(path, 3)


def test_unknown_names():
    with pytest.raises(FlowjaxError, match="choose from llava-next-7b"):
        preset("7b", "paper")
    with pytest.raises(FlowjaxError, match="form 'found'"):
        preset("llava-next-7b", "found")


def random_layout(length=600, system=37):
    names = ["system"] * system + ["frame_0"] * 300 + ["frame_1"] * 200
    return TokenLayout.from_cells([*names, *["question_stem"] * (length - len(names) - 1), "last"])


def test_random_edges_are_as_many_as_asked_and_stay_after_the_text_before_the_video():
    layout = random_layout()
    n, total = layout.length, layout.length * (layout.length + 1) // 2
    table = np.asarray(random_edges(layout, 0.42, seed=3, layers=2).dense().allowed)
    assert table.shape == (2, 1, n, n)
    causal = np.tri(n, dtype=bool)
    assert not (table & ~causal).any()
    cut = causal & ~table[:, 0]
    assert (cut.sum(axis=(1, 2)) == int(0.58 * total)).all()
    assert not cut[:, :37].any() and not cut[:, :, :37].any()
    assert (cut[0] != cut[1]).any(), "both layers lose the same edges"
    # Every part of the triangle loses its share: 5 standard deviations of a fair draw.
    share = int(0.58 * total) / np.tri(n - 37).sum()
    for rows in (slice(37, 300), slice(300, 500), slice(500, 600)):
        for columns in (slice(37, 200), slice(200, 600)):
            pairs = causal[rows, columns].sum()
            spread = 5 * np.sqrt(share * (1 - share) / pairs)
            assert cut[0, rows, columns].sum() / pairs == pytest.approx(share, abs=spread)


def test_random_edges_follow_their_seed():
    layout = random_layout()
    one, same, other = (
        random_edges(layout, 0.5, seed=seed, layers=1).dense().allowed for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()
    # A layer's edges do not depend on how many layers there are, nor on those drawn before it.
    three = random_edges(layout, 0.5, seed=1, layers=3)
    np.testing.assert_array_equal(np.asarray(three.dense().allowed)[0], np.asarray(one)[0])
    *_, (start, block) = three.blocks(2)
    np.testing.assert_array_equal(np.asarray(three.dense().allowed)[2, 0, start:], block)


@pytest.mark.parametrize(
    ("fraction", "seed", "message"),
    [(1.5, 0, "between 0 and 1"), (0.5, -1, "seed -1"), (0.0, 0, "only 158766 are not of the")],
)
def test_random_edges_that_cannot_be(fraction, seed, message):
    with pytest.raises(FlowjaxError, match=message):
        random_edges(random_layout(), fraction, seed=seed, layers=1)
