"""A sweep over samples: decode ahead, run an engine, store rows."""

import hashlib
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from flowjax.models.checkpoint import LoadedModel
from flowjax.progress import Advance, progress_bar
from flowjax.sweep.answers import Answers, Engine
from flowjax.sweep.engine import planned
from flowjax.sweep.protocol import Protocol
from flowjax.sweep.rows import Outcome, read_out, result_table
from flowjax.sweep.sample import Prepared, Sample, embed, prepare
from flowjax.sweep.store import RunStore
from flowjax.version import __version__

LOG = logging.getLogger(__name__)

AHEAD = 2
"""Batches whose answers may be pending on the device while the host prepares the next."""


def sweep(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    protocol: Protocol,
    out: Path,
    *,
    overwrite: bool = False,
    engine: Engine = planned,
) -> pa.Table:
    """Run a sweep and store its rows in the folder `out` (see `flowjax.sweep.store`).

    While one sample is swept, the next is decoded and preprocessed. A run that was interrupted
    goes on after its last finished sample.

    Args:
        loaded: the model.
        samples: in the order of the results.
        protocol: edges and windows.
        out: the run's folder.
        overwrite: replace another run there.
        engine: how answers are computed.

    Returns:
        All rows, with the schema `flowjax.sweep.rows.SCHEMA`.

    Raises:
        FlowjaxError: a bad sample, edge, window or folder.
    """
    decoder = loaded.config.decoder
    store = RunStore(
        out, run_settings(loaded, samples, protocol), len(samples), overwrite=overwrite
    )
    done = store.done
    todo = [index for index in range(len(samples)) if index not in done]
    with progress_bar("samples", len(samples), done=len(done)) as advance:
        for index, prepared in _ahead(loaded, samples, todo):
            if prepared.repeated_frames:
                LOG.warning(
                    "%s has too few frames for %d; some are repeated",
                    prepared.sample.video,
                    loaded.config.frames,
                )
            layout = protocol.layout(prepared.prompt.layout)
            cells = protocol.cells(layout, decoder.layers, decoder.heads)
            answers = engine(
                loaded.model.decoder,
                embed(loaded.model, prepared),
                layout,
                [cell.knockout for cell in cells],
            )
            outcome = _outcome(answers, prepared.true_id, len(cells), advance)
            rows = result_table(
                prepared,
                layout,
                protocol,
                cells,
                outcome,
                loaded.tokenizer,
                model=loaded.name,
                note=loaded.note,
            )
            store.write(index, rows)
    return store.finish()


def _ahead(
    loaded: LoadedModel, samples: Sequence[Sample], indices: Sequence[int]
) -> Iterator[tuple[int, Prepared]]:
    """Prepared samples in order; the next is prepared in a thread while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: deque[tuple[int, Future[Prepared]]] = deque()
        for index in indices:
            pending.append((index, pool.submit(prepare, loaded, samples[index])))
            if len(pending) > 1:
                first, future = pending.popleft()
                yield first, future.result()
        for index, future in pending:
            yield index, future.result()


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


def run_settings(
    loaded: LoadedModel, samples: Sequence[Sample], protocol: Protocol
) -> dict[str, Any]:
    """Everything that decides a run's results, as JSON values for its manifest."""
    questions = hashlib.sha256()
    videos = hashlib.sha256()
    for sample in samples:
        question = sample.question
        fields = (sample.sample_id, sample.task, question.stem, question.options, question.answer)
        questions.update(repr(fields).encode())
        videos.update(repr((sample.start, sample.end, video_digest(sample.video))).encode())
    return {
        "model": loaded.name,
        "checkpoint": checkpoint_digest(loaded.path),
        "dtype": str(loaded.model.dtype),
        "samples": len(samples),
        "questions": questions.hexdigest(),
        "videos": videos.hexdigest(),
        "edges": [f"{line.edge_set}: {'+'.join(map(str, line.edges))}" for line in protocol.edges],
        "heads": protocol.heads,
        "window": protocol.width,
        "style": protocol.style,
        "version": __version__,
    }


def checkpoint_digest(path: Path) -> str:
    """SHA-256 of a converted model's configuration and the start of every parameter file."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and (file.parent == path or file.parent.parent == path / "params"):
            total.update(str(file.relative_to(path)).encode())
            with file.open("rb") as handle:
                total.update(handle.read(1 << 16))
    return total.hexdigest()


def video_digest(path: Path) -> str:
    """A video's size and the SHA-256 of its first MiB; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = hashlib.sha256(file.read(1 << 20)).hexdigest()
        return f"{path.stat().st_size} {start}"
    except OSError:
        return ""
