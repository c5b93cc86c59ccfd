"""Generation probability: how the options' probabilities grow over the layers."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from flowjax.report.arrays import by_sample
from flowjax.report.canvas import (
    Line,
    count_of,
    draw_lines,
    drawable,
    head,
    legend,
    save_figure,
)
from flowjax.report.statistics import Interval, mean_interval, paired_interval

FORMS = {True: "final norm at every layer", False: "final norm at the last layer only"}


@dataclass(frozen=True)
class LayerProbability:
    """Probability of the true option and the mean of the false ones after a layer (from 1).

    gap: true - false, paired over samples.
    """

    layer: int
    normed: bool
    true: Interval
    false: Interval
    gap: Interval


def layer_probabilities(table: pa.Table) -> list[LayerProbability]:
    """Every layer's probabilities, in both forms.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    found = []
    true = by_sample(table, "true_probability", "normed", "layer")
    false = by_sample(table, "false_probability", "normed", "layer").values
    for i, normed in enumerate(true.axes[0]):
        for j, layer in enumerate(true.axes[1]):
            t, f = true.values[:, i, j], false[:, i, j]
            found.append(
                LayerProbability(
                    layer + 1, normed, mean_interval(t), mean_interval(f), paired_interval(t, f)
                )
            )
    return found


def emerges_at(layers: list[LayerProbability]) -> int | None:
    """The first layer (from 1) from which on the true option is ahead at every layer.

    Ahead: the gap's interval lies above zero. None where the last layer's does not.

    layers: of one form, ascending.
    """
    first = None
    for at in reversed(layers):
        if not (at.gap.excludes_zero and at.gap.mean > 0):
            break
        first = at.layer
    return first


def draw_probability(table: pa.Table, folder: Path) -> list[Path]:
    """Draw the curves, and the first sample's most probable tokens, into `folder`.

    Raises:
        FlowjaxError: see `by_sample`.
    """
    return [
        save_figure(_curves(table), folder / "probability.png"),
        save_figure(_top_tokens(table), folder / "top-tokens.png"),
    ]


def _curves(table: pa.Table) -> Figure:
    true = by_sample(table, "true_probability", "normed", "layer")
    false = by_sample(table, "false_probability", "normed", "layer")
    figure = Figure(figsize=(8, 4.2), dpi=200, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, normed in zip(panels, (True, False), strict=True):
        form = true.axes[0].index(normed)
        lines = [
            Line("true option", true.values[:, form], 0),
            Line("false options, mean", false.values[:, form], 1),
        ]
        draw_lines(axes, true.axes[1], lines)
        axes.set_title(FORMS[normed], fontsize=8, color="0.3")
    panels[0].set_ylabel("probability as the next token")
    panels[0].set_ylim(bottom=0)
    legend(figure, panels[0])
    head(figure, "Probability of the options", count_of(len(true.samples)), table)
    return figure


def _top_tokens(table: pa.Table) -> Figure:
    """A table of the tokens of the first sample: a row per layer, darker where more probable."""
    sample = table["sample_id"][0]
    chosen = table.filter((pc.field("sample_id") == sample) & pc.field("normed")).sort_by("layer")
    rows = chosen.to_pylist()
    probability = np.array([row["top_probabilities"] for row in rows])
    layers, k = probability.shape
    figure = Figure(figsize=(1.2 + 0.75 * k, 1.6 + 0.24 * layers), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(
        probability, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    for i, row in enumerate(rows):
        for j, token in enumerate(row["top_tokens"]):
            own = token in row["letters"] and token
            axes.text(
                j,
                i,
                textwrap.shorten(drawable(token) or "(space)", 11, placeholder="..."),
                ha="center",
                va="center",
                fontsize=6,
                color="white" if probability[i, j] > 0.6 else "black",
                fontweight="bold" if own else "normal",
                parse_math=False,
            )
    axes.set_xticks(range(k), [str(rank + 1) for rank in range(k)])
    axes.set_yticks(range(layers), [str(row["layer"] + 1) for row in rows])
    axes.tick_params(labelsize=7, length=0)
    axes.set_xlabel("rank")
    axes.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label="probability", aspect=30)
    said = (
        f"sample {drawable(str(sample))}: answer {drawable(rows[-1]['base_answer'])}, "
        f"true option {rows[-1]['true_answer']}; {FORMS[True]}; option letters in bold"
    )
    head(figure, "Most probable next tokens", said, table)
    return figure
