"""A sweep over samples: run an engine, read its answers out as rows."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from flowjax.asked.asked import Asked, true_token
from flowjax.data.sample import Sample
from flowjax.models.checkpoint import LoadedModel
from flowjax.progress import Advance
from flowjax.runs.each_sample import Chosen, Results, each_sample, is_chosen
from flowjax.sweeps.answers import Answers, Engine
from flowjax.sweeps.engine import planned
from flowjax.sweeps.protocol import Protocol
from flowjax.sweeps.rows import SCHEMA, Outcome, read_out, result_table

AHEAD = 2
"""Batches whose answers may be pending on the device while the host prepares the next."""


def sweep(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    protocol: Protocol,
    out: Path,
    *,
    chosen: Chosen = "all",
    strict: bool = True,
    overwrite: bool = False,
    engine: Engine = planned,
) -> Results:
    """Run a sweep and store its rows in the folder `out` (see `flowjax.runs.each_sample`).

    Args:
        loaded: the model.
        samples: in the order of the results.
        protocol: edges and windows.
        out: the run's folder.
        chosen: sweep only the samples that the model answers correctly, or only the others.
        strict: a sample that cannot be read ends the run; otherwise it is recorded and skipped.
        overwrite: replace another run there.
        engine: how answers are computed.

    Returns:
        All rows, with the schema `flowjax.sweeps.rows.SCHEMA`.

    Raises:
        FlowjaxError: a bad sample, edge, window or folder.
    """
    decoder = loaded.config.decoder

    def measure(prepared: Asked, advance: Advance) -> pa.Table | None:
        layout = protocol.layout(prepared.prompt.layout)
        cells = protocol.cells(layout, decoder.layers, decoder.heads)
        answers = engine(
            loaded.model.decoder,
            prepared.embedded,
            layout,
            [cell.knockout for cell in cells],
        )
        base_id = int(jnp.argmax(answers.base))
        if not is_chosen(chosen, prepared.is_correct(base_id)):
            return None
        outcome = _outcome(answers, true_token(prepared), len(cells), advance)
        return result_table(
            prepared,
            layout,
            protocol,
            cells,
            outcome,
            loaded.tokenizer,
            model=loaded.name,
            note=loaded.note,
        )

    return each_sample(
        loaded,
        samples,
        measure,
        out,
        schema=SCHEMA,
        settings={**protocol_settings(protocol), "chosen": chosen},
        strict=strict,
        overwrite=overwrite,
    )


def _outcome(answers: Answers, true_id: int, count: int, advance: Advance) -> Outcome:
    base_logits = answers.base[None]
    base_id = jnp.argmax(base_logits[0])
    truth = jnp.asarray(true_id)
    _, base, base_true = jax.device_get(read_out(base_logits, base_id, truth))
    new_id = np.zeros(count, np.int32)
    new, new_true = np.zeros(count, np.float32), np.zeros(count, np.float32)
    pending: deque = deque()

    def collect() -> None:
        indices, read = pending.popleft()
        chosen = list(indices)
        new_id[chosen], new[chosen], new_true[chosen] = jax.device_get(read)
        advance(len(chosen) / count)

    for indices, logits in answers.windows:
        pending.append((indices, read_out(logits, base_id, truth)))
        if len(pending) > AHEAD:
            collect()
    while pending:
        collect()
    return Outcome(int(base_id), float(base[0]), float(base_true[0]), new_id, new, new_true)


def protocol_settings(protocol: Protocol) -> dict[str, Any]:
    """Edges and windows, as JSON values for a run's manifest."""
    return {
        "edges": [f"{line.edge_set}: {'+'.join(map(str, line.edges))}" for line in protocol.edges],
        "heads": protocol.heads,
        "window": protocol.width,
        "style": protocol.style,
    }
