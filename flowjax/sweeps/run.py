"""A sweep of one sample: run an engine, read its answers out as rows."""

from collections import deque
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from flowjax.asked.asked import Asked
from flowjax.progress import Advance
from flowjax.sweeps.answers import Answers, Engine
from flowjax.sweeps.engine import planned
from flowjax.sweeps.protocol import Protocol
from flowjax.sweeps.rows import Outcome, read_out, result_table

AHEAD = 2
"""Batches whose answers may be pending on the device while the host prepares the next."""


def measure(
    asked: Asked,
    protocol: Protocol,
    *,
    engine: Engine = planned,
    advance: Advance = lambda part: None,
) -> tuple[int, Callable[[], pa.Table]]:
    """Ask a sample, and sweep it if its rows are wanted.

    Args:
        asked: the sample.
        protocol: edges and windows.
        engine: how answers are computed.
        advance: called with parts of 1.

    Returns:
        The model's most probable next token, and what runs the windows and makes their rows, with
        the schema `flowjax.sweeps.rows.SCHEMA`.

    Raises:
        FlowjaxError: a bad edge or window.
    """
    decoder = asked.decoder.config
    layout = protocol.layout(asked.layout)
    cells = protocol.cells(layout, decoder.layers, decoder.heads)
    knockouts = [cell.knockout for cell in cells]
    answers = engine(asked.decoder, asked.embedded, layout, knockouts)

    def rows() -> pa.Table:
        outcome = _outcome(answers, asked.true_id, len(cells), advance)
        return result_table(
            asked,
            layout,
            protocol,
            cells,
            outcome,
            asked.model.tokenizer,
            model=asked.model.name,
            note=asked.note,
        )

    return int(jnp.argmax(answers.base)), rows


def _outcome(answers: Answers, true_id: int | None, count: int, advance: Advance) -> Outcome:
    base_logits = answers.base[None]
    base_id = jnp.argmax(base_logits[0])
    truth = jnp.asarray(0 if true_id is None else true_id)
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
    of_truth = float(base_true[0])
    if true_id is None:
        of_truth, new_true = float("nan"), np.full_like(new_true, np.nan)
    return Outcome(int(base_id), float(base[0]), of_truth, new_id, new, new_true)
