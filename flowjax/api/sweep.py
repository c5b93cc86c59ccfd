"""Sweeps as a program asks for them: every window of every edge, as a table and a figure."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from flowjax.api.rows import Rows
from flowjax.asked.asked import Asked, ask_sample
from flowjax.data.benchmark import read_benchmark
from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.layer_windows import EDGE_SETS
from flowjax.models.loaded import LoadedModel
from flowjax.patches import Patch
from flowjax.sweeps.protocol import Protocol, fitting_width, parse_centres, protocol
from flowjax.sweeps.run import measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flowjax.report.page.page import Page


@dataclass(frozen=True, eq=False, repr=False)
class Swept(Rows):
    """A sweep's results: one row per sample, edge or patch, and window."""

    def plot(self) -> "Figure":
        """Change of the answer's probability over layers: a line per edge, a heat map of patches.

        Layers are drawn from 1. The figure shows itself in a notebook.
        """
        from flowjax.api.figure import draw_swept  # noqa: PLC0415 - matplotlib is slow to import

        return draw_swept(self.table)

    def report(self) -> "Page":
        """The flow map and the curves, as one HTML file.

        A notebook shows it inline; `report().save("report.html")` writes it.

        Raises:
            FlowjaxError: a sample lacks some windows.
        """
        from flowjax.report.page import flow  # noqa: PLC0415 - matplotlib is slow to import
        from flowjax.report.page.page import make_page  # noqa: PLC0415 - as above

        models = ", ".join(self.table["model"].unique().to_pylist())
        sections = flow.sections([flow.Swept(models, self.table)])
        return make_page(f"Information flow in {models}", sections)


def sweep(
    asked: Asked | Sample | str | Path | Sequence[Asked | Sample],
    edges: str | Patch | Sequence[str | Patch] = (),
    *,
    window: int | None = None,
    style: str = "center",
    heads: str | None = None,
    centres: str | None = None,
    model: LoadedModel | None = None,
    limit: int | None = None,
) -> Swept:
    """Cut edges, or patch states, in every window of layers; exact, at a fraction of the cost.

    Args:
        asked: what `ask` gave, several of them, or a benchmark: its folder, or its samples.
        edges: edge sets of the paper ("cross-frame", ...), edges ("video->question"), and patches,
            whose layers are left open. All edge sets of the paper where nothing is said.
        window: layers of a window; None for 9, or what fits a model of fewer than 18 layers.
        style: "center", "inverse", "top_down" or "bottom_up"; see
            `flowjax.layer_windows.window_layers`.
        heads: "all", or numbers such as "0,3,5", to cut heads one by one; None cuts all at once.
        centres: of the windows, from 0, such as "3,7,11" or "4-9"; None for every layer.
        model: that a benchmark is put to.
        limit: questions of a benchmark's folder; None for all.

    Returns:
        A table whose columns `flowjax.sweeps.rows.SCHEMA` explains; layers are 0-based in it.

    Raises:
        FlowjaxError: an edge, window, head or group that does not exist; a video that cannot be
            read; or no question.

    Examples:
        >>> run = fj.sweep(asked, ["cross-frame", "video->question"], window=3)
        >>> run.table.num_rows == 2 * asked.decoder.config.layers
        True
    """
    chosen = [edges] if isinstance(edges, str | Patch) else list(edges)
    tables = []
    for one in _each(asked, model, limit):
        layers = one.decoder.config.layers
        width = fitting_width(layers) if window is None else window
        _, rows = measure(one, asked_protocol(chosen, width, style, heads, centres))
        tables.append(rows())
    if not tables:
        raise FlowjaxError("there is no question to sweep")
    return Swept(pa.concat_tables(tables))


def asked_protocol(
    edges: Iterable[str | Patch],
    width: int,
    style: str,
    heads: str | None,
    centres: str | None = None,
) -> Protocol:
    """Edges, edge sets and patches in any order, as a protocol.

    Raises:
        FlowjaxError: see `protocol`; or a patch whose layers are said.
    """
    edges = list(edges)
    named = [edge for edge in edges if isinstance(edge, str)]
    patches = tuple(edge for edge in edges if isinstance(edge, Patch))
    for patch in patches:
        if patch.layers is not None:
            raise FlowjaxError(
                f"patch {patch.name!r}: a sweep puts it in every window; leave its layers out"
            )
    sets = [edge for edge in named if edge in EDGE_SETS]
    own = [edge for edge in named if edge not in EDGE_SETS]
    if patches and not named:
        numbers = None if centres is None else parse_centres(centres)
        return Protocol((), width, style, patches=patches, centres=numbers)
    cut = protocol(sets, own, width=width, style=style, heads=heads, centres=centres)
    return dataclasses.replace(cut, patches=patches)


def _each(
    asked: Asked | Sample | str | Path | Sequence[Asked | Sample],
    model: LoadedModel | None,
    limit: int | None,
) -> Iterator[Asked]:
    if isinstance(asked, str | Path):
        several: Sequence[Asked | Sample] = read_benchmark(Path(asked), limit=limit)
    elif isinstance(asked, Asked | Sample):
        several = [asked]
    else:
        several = asked
    for one in several:
        if isinstance(one, Asked):
            yield one
        elif model is None:
            raise FlowjaxError("model=: say which model the benchmark's questions are put to")
        else:
            yield ask_sample(model, one)
