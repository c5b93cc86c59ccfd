"""Samples whose frames are drawn, and what is printed about a run's files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.lens.pictures import keep_pictures, pictures_of
from flowjax.models.checkpoint import LoadedModel

SOME = 4
"""Layers drawn where none are named."""


@dataclass(frozen=True)
class Drawn:
    """What is drawn on frames: layers, 0-based, of the first `samples` samples."""

    layers: tuple[int, ...]
    samples: int


def read_drawn(layers: Sequence[int], samples: int, *, depth: int) -> Drawn:
    """What the command line asks for.

    Args:
        layers: counted from 1, as figures number them; a few where empty.
        samples: at least 0.
        depth: layers that the model has.

    Raises:
        FlowjaxError: a layer that the model does not have, or a negative number of samples.
    """
    if samples < 0:
        raise FlowjaxError(f"--drawn {samples}: give at least 0 samples")
    for layer in layers:
        if not 1 <= layer <= depth:
            raise FlowjaxError(f"--layer {layer}: the model's layers are 1 to {depth}")
    chosen = sorted({layer - 1 for layer in layers})
    if not chosen:
        chosen = sorted({round(layer) for layer in np.linspace(0, depth - 1, SOME)})
    return Drawn(tuple(chosen), samples)


def keep_drawn(
    run: Path, loaded: LoadedModel, samples: Sequence[Sample], rows: pa.Table, drawn: Drawn
) -> None:
    """Keep the frames that are drawn in the run's folder.

    Args:
        run: the folder.
        loaded: the model.
        samples: of the run.
        rows: its results, with columns sample_id and frame.
        drawn: the first samples that have rows are.

    Raises:
        FlowjaxError: a video that can no longer be read.
    """
    by_id = {sample.sample_id: sample for sample in samples}
    kept = []
    for name in rows["sample_id"].unique().to_pylist()[: drawn.samples]:
        of_sample = rows.filter(pc.field("sample_id") == name)
        frames = int(of_sample["frame"].to_numpy().max()) + 1
        kept.append(pictures_of(loaded, by_id[name], frames, drawn.layers))
    keep_pictures(run, kept)


def print_notes(table: pa.Table) -> None:
    """What to know about the models of a run."""
    for note in table["model_note"].unique().to_pylist():
        if note:
            print(f"NOTE: {note}")


def print_paths(run: Path, table: pa.Table, figures: Iterable[Path]) -> None:
    """Where the rows and the figures are."""
    print(f"\nrows     {run / 'results.parquet'} ({table.num_rows})")
    for figure in figures:
        print(f"figure   {figure}")
