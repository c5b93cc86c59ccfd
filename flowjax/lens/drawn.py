"""Which layers of which samples are drawn on frames, and keeping those frames with a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.lens.pictures import keep_pictures, pictures_of
from flowjax.models.loaded import LoadedModel
from flowjax.report.arrays import grouped

SOME = 4
"""Layers drawn where none are named."""


def drawn_layers(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """The layers (0-based) that are drawn; a few where none are named.

    Raises:
        FlowjaxError: a layer that a model of this depth does not have.
    """
    for layer in layers:
        if not 0 <= layer < depth:
            raise FlowjaxError(f"--layer {layer}: the model's layers are 0 to {depth - 1}")
    some = layers or [round(layer) for layer in np.linspace(0, depth - 1, SOME)]
    return tuple(sorted(set(some)))


def keep_drawn(
    run: Path,
    loaded: LoadedModel,
    samples: Sequence[Sample],
    rows: pa.Table,
    layers: Sequence[int],
    count: int,
) -> None:
    """Keep the frames that are drawn in the run's folder.

    Args:
        run: the folder.
        loaded: the model.
        samples: of the run.
        rows: its results, with columns sample_id and frame.
        layers: to draw; see `drawn_layers`.
        count: of samples; the first that have rows.

    Raises:
        FlowjaxError: a video that can no longer be read.
    """
    by_id = {sample.sample_id: sample for sample in samples}
    chosen = drawn_layers(layers, loaded.config.decoder.layers)
    kept = []
    for name, of_sample in list(grouped(rows, "sample_id").items())[:count]:
        frames = int(of_sample["frame"].to_numpy().max()) + 1
        kept.append(pictures_of(loaded, by_id[name], frames, chosen))
    keep_pictures(run, kept)
