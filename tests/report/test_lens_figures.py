"""Figures of the lenses hold whatever text and numbers come."""

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from flowjax.lens.pictures import Pictures
from flowjax.report.canvas import NOT_IN_FONT, drawable, save_figure
from flowjax_experiments.attention import Attention, draw_attention, video_attention
from flowjax_experiments.lens import (
    KIND_COLOURS,
    Lens,
    draw_layers,
    draw_overlay,
    draw_words,
)
from flowjax_experiments.probability import Probability, draw_probability

TOKENS = [
    "$x$",
    "漢字",
    "\x00",
    "",
    "a-token-that-is-much-too-long-for-its-place",
    "[bold]",
    "_{",
    "%",
]
NOTE = "a note with $math$, 漢 and [markup]"


def rows(schema: pa.Schema, values: list[dict]) -> pa.Table:
    blank = dict.fromkeys(schema.names, "x") | {"correct": True, "base_id": 7, "model_note": NOTE}
    blank |= dict.fromkeys(("num_frames", "video_tokens"), 8)
    return pa.Table.from_pylist([blank | row for row in values], schema)


def is_png(figure, folder) -> bool:
    with Image.open(save_figure(figure, folder / "new" / "figure.png")) as image:
        return image.format == "PNG" and min(image.size) > 300


def test_characters_that_the_font_lacks_are_squares():
    assert drawable("ab $c$ é") == "ab $c$ é"
    assert drawable("a漢\n\x00") == "a" + 3 * NOT_IN_FONT


@pytest.mark.parametrize("grid", [1, 12])
def test_any_token_is_written_on_frames(tmp_path, grid):
    values = [
        {
            "sample_id": "s $1$", "task": "t", "layer": 3, "position": 0, "frame": frame,
            "row": row, "column": column, "token_ids": [0, 1],
            "tokens": [TOKENS[(row + column) % len(TOKENS)], "left"], "probabilities": [0.5, 0.1],
            "spatial_rank": (frame + row) % 3 - 1, "temporal_rank": column % 3 - 1,
            "spatial_vocabulary": 0.1, "temporal_vocabulary": 0.0,
        }
        for frame in range(3)
        for row in range(grid)
        for column in range(2 * grid)
    ]  # fmt: skip
    text = values[0] | {"row": -1, "column": -1}  # a token of text, in no place
    table = rows(Lens.SCHEMA, [*values, text])
    frames = np.full((3, 40, 80, 3), 200, np.uint8)
    assert is_png(draw_overlay(table, Pictures("s $1$", frames, (3,)), 3), tmp_path)
    assert is_png(draw_words(table), tmp_path)


def test_all_layers_in_one_figure(tmp_path):
    """Colours of places: the kind that ranks first, pale where it is not on top."""
    kinds = {0: (-1, -1), 1: (0, 1), 2: (1, 0), 3: (1, -1)}
    values = [
        {
            "sample_id": "s", "layer": layer, "position": 0, "frame": frame, "row": 0,
            "column": 0, "token_ids": [0, 1], "tokens": ["a", "b"], "probabilities": [0.5, 0.1],
            "spatial_rank": spatial, "temporal_rank": temporal,
            "spatial_vocabulary": 0.1, "temporal_vocabulary": 0.0,
        }
        for layer, (spatial, temporal) in kinds.items()
        for frame in range(2)
    ]  # fmt: skip
    figure = draw_layers(rows(Lens.SCHEMA, values), "s")
    (axes,) = figure.axes
    (image,) = axes.get_images()
    picture = image.get_array()[::2, ::2]  # between them is a line
    assert picture.shape == (4, 2, 3)
    none, spatial, temporal, pale = picture[::-1, 0]  # the first layer is below
    assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "3", "2", "1"]
    np.testing.assert_allclose(spatial, to_rgb(KIND_COLOURS["spatial"]))
    np.testing.assert_allclose(temporal, to_rgb(KIND_COLOURS["temporal"]))
    np.testing.assert_allclose(none, 0.88)
    np.testing.assert_allclose(pale, 0.45 * spatial + 0.55 * none)
    assert is_png(figure, tmp_path)


def test_any_token_is_in_the_table_of_tokens(tmp_path):
    values = [
        {
            "sample_id": "[s]", "layer": layer, "normed": normed, "letters": "AB",
            "probabilities": [0.5, 0.2], "true_probability": 0.5, "false_probability": 0.2,
            "top_ids": list(range(8)), "top_tokens": TOKENS, "top_probabilities": [0.1] * 8,
        }
        for normed in (True, False)
        for layer in range(3)
    ]  # fmt: skip
    for figure in draw_probability(rows(Probability.SCHEMA, values)).values():
        assert is_png(figure, tmp_path)


def test_samples_with_different_numbers_of_frames(tmp_path):
    values = [
        {
            "sample_id": sample, "target": "last", "knockout": False, "edge": "", "cut_from": -1,
            "cut_to": -1,
            "layer": layer, "head": -1, "frame": frame, "attention": 0.1 * (frame + 1),
            "rows": 1, "columns": 1, "weights": [0.1],
        }
        for sample, frames in (("a", 2), ("b", 3))
        for layer in range(2)
        for frame in range(frames)
    ]  # fmt: skip
    table = rows(Attention.SCHEMA, values)
    assert [at.base.mean for at in video_attention(table)] == pytest.approx([0.45, 0.45])
    assert video_attention(table)[0].change is None
    assert is_png(draw_attention(table), tmp_path)
