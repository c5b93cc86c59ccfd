"""Screening by gradient: predicted beside exact effects."""

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowjax.report.canvas import head, save_figure, tidy
from flowjax.report.figures import COLOURS
from flowjax.report.statistics import Interval, mean_interval, rank_correlation
from flowjax.screen.choose import Gate, mean_effects

WHY = {"top": "largest predictions", "random": "drawn at random from the rest"}
MOST_EDGES = 40
"""Edges drawn: those with the largest effects."""


@dataclass(frozen=True)
class Screened:
    """A gate that was checked: means over samples, in nats of the answer's log-probability."""

    gate: Gate
    chosen: str
    predicted: Interval
    exact: Interval


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of the means predicted and exact over some gates (NaN for fewer than 2)."""

    gates: int
    rank: float


def screened(exact: pa.Table) -> list[Screened]:
    """Means of the gates that were checked, in the order in which they were chosen."""
    values: dict[tuple[Gate, str], list[tuple[float, float]]] = defaultdict(list)
    names = ("edge", "layer", "head", "chosen", "predicted", "exact")
    for edge, layer, head_, why, predicted, value in zip(
        *(exact[name].to_pylist() for name in names), strict=True
    ):
        values[Gate(edge, layer, head_), why].append((predicted, value))
    found = []
    for (gate, why), pairs in values.items():
        predicted, value = np.array(pairs).T
        found.append(Screened(gate, why, mean_interval(predicted), mean_interval(value)))
    # A gate that the first sample lacks was met late.
    rank = {"top": 0, "random": 1}
    return sorted(found, key=lambda at: (rank[at.chosen], -abs(at.predicted.mean)))


def agreement(found: Sequence[Screened], chosen: str) -> Agreement:
    """How alike predicted and exact means rank the gates chosen for one reason."""
    some = [at for at in found if at.chosen == chosen]
    predicted = np.array([at.predicted.mean for at in some])
    exact = np.array([at.exact.mean for at in some])
    return Agreement(len(some), rank_correlation(predicted, exact))


def draw_screen(table: pa.Table, exact: pa.Table, folder: Path) -> list[Path]:
    """Draw where predicted effects are, and how they compare with exact ones, into `folder`.

    Args:
        table: of all gates.
        exact: of the gates checked.
        folder: is made.
    """
    return [
        save_figure(_map(table), folder / "gates.png"),
        save_figure(_scatter(exact), folder / "predicted-and-exact.png"),
    ]


def _scatter(exact: pa.Table) -> Figure:
    figure = Figure(figsize=(5.6, 5.2), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    found = screened(exact)
    for index, (why, said) in enumerate(WHY.items()):
        some = [at for at in found if at.chosen == why]
        if not some:
            continue
        of_kind = agreement(found, why)
        x = np.array([at.predicted.mean for at in some])
        y = np.array([at.exact.mean for at in some])
        spread = np.abs(
            [[at.exact.mean - at.exact.low, at.exact.high - at.exact.mean] for at in some]
        )
        axes.errorbar(
            x,
            y,
            yerr=spread.T if some[0].exact.n > 1 else None,
            fmt="os"[index],
            color=COLOURS[index],
            markersize=4,
            markerfacecolor=COLOURS[index] if index == 0 else "white",
            elinewidth=0.8,
            zorder=2 + index,
            label=f"{of_kind.gates} {said}: rank correlation {of_kind.rank:+.2f}",
        )
    axes.axline(
        (0, 0), slope=1, color="0.5", linewidth=0.8, linestyle="--", label="exact = predicted"
    )
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("predicted by the gradient (nats)")
    axes.set_ylabel("exact knockout (nats)")
    tidy(axes)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    samples = len(exact["sample_id"].unique())
    said = f"n = {samples}; a point is one edge in one layer and head"
    said += "; bar: 95% bootstrap interval" if samples > 1 else "; one sample: no interval"
    head(figure, "Change of the answer's log-probability by a knockout", said, exact)
    return figure


def _map(table: pa.Table) -> Figure:
    """Edges by layers, summed over heads; beside it, layers by heads, the largest of any edge."""
    effects = mean_effects(table)
    edges = list(dict.fromkeys(table["edge"].to_pylist()))
    layers = max(gate.layer for gate in effects) + 1
    heads = max(gate.head for gate in effects) + 1
    by_edge = np.zeros((len(edges), layers))
    by_head = np.zeros((max(heads, 1), layers))
    place = {edge: index for index, edge in enumerate(edges)}
    for gate, value in effects.items():
        by_edge[place[gate.edge], gate.layer] += value
        at = max(gate.head, 0), gate.layer
        by_head[at] = max(by_head[at], value, key=abs)
    most = np.argsort(-np.abs(by_edge).max(axis=1), kind="stable")[:MOST_EDGES]
    shown = np.sort(most)
    height = 1.9 + 0.17 * max(len(shown), heads)
    figure = Figure(figsize=(9 if heads else 6.5, height), dpi=200, layout="constrained")
    panels = figure.subplots(1, 2 if heads else 1, squeeze=False)[0]
    labels = [textwrap.shorten(_arrow(edges[index]), 45, placeholder=" ...") for index in shown]
    left = "every edge" if len(shown) == len(edges) else f"the {len(shown)} edges that do most"
    _heat(figure, panels[0], by_edge[shown], labels)
    panels[0].set_title(f"{left}, in all heads at once", fontsize=8, color="0.3")
    if heads:
        _heat(figure, panels[1], by_head, [str(index) for index in range(heads)])
        panels[1].set_title("every head: its edge that does most", fontsize=8, color="0.3")
        panels[1].set_ylabel("head")
    samples = len(table["sample_id"].unique())
    said = f"nats of log-probability, mean over n = {samples}; first order, from one gradient each"
    head(figure, "Predicted effect of cutting an edge in one layer", said, table)
    return figure


def _heat(
    figure: Figure, axes: Axes, values: Float[np.ndarray, "rows layers"], labels: Sequence[str]
) -> None:
    most = float(np.abs(values).max()) or 1.0
    image = axes.imshow(
        values,
        cmap="PuOr",
        vmin=-most,
        vmax=most,
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, values.shape[1] + 0.5, len(values) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(values)), labels, parse_math=False)
    axes.tick_params(axis="y", labelsize=7, length=0)
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes, aspect=30)


def _arrow(edge: str) -> str:
    return edge.replace("->", " \N{RIGHTWARDS ARROW} ").replace("_", " ")
