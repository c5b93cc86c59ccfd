"""The loop that every analysis shares: decode ahead, measure a sample, store its rows."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from flowjax.asked.asked import Asked, ask_sample
from flowjax.data.frame_order import AS_IS
from flowjax.data.sample import Sample
from flowjax.data.samples import Samples
from flowjax.errors import FlowjaxError
from flowjax.hosts.replica import ALONE, Replica, Tally
from flowjax.models.loaded import LoadedModel
from flowjax.progress import Advance, progress_bar
from flowjax.runs.begin import begin
from flowjax.runs.selection import Chosen
from flowjax.runs.settings import made_of, model_settings, sample_settings
from flowjax.runs.store import Overwrite

LOG = logging.getLogger(__name__)

Measure = Callable[[Asked, Advance], pa.Table | None]
"""Makes the rows of a sample, None if the sample is not among those asked for.

It may call `advance` with parts of 1 while it works.
"""


@dataclass(frozen=True, eq=False)
class Results:
    """What a run over samples gives.

    rows: of all samples measured, in sample order.
    failures: columns sample_id, task, video, error; one row per sample that could not be read.
    settings: everything that decides the rows but the questions and the videos.
    """

    rows: pa.Table
    failures: pa.Table
    settings: dict[str, Any]


def is_chosen(chosen: Chosen, correct: bool) -> bool:
    """Whether a sample counts, given whether the model answers it correctly."""
    return chosen == "all" or correct == (chosen == "correct")


def each_sample(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    measure: Measure,
    out: Path | None,
    *,
    schema: pa.Schema,
    settings: Mapping[str, Any],
    order: str = AS_IS,
    is_open: bool = False,
    references: bool = False,
    strict: bool = False,
    overwrite: Overwrite = False,
    replica: Replica = ALONE,
) -> Results | None:
    """Measure every sample and store its rows in the folder `out` (see `RunStore`).

    While one sample is measured, the next is decoded and preprocessed. A run that was interrupted
    goes on after its last finished sample. A sample that cannot be read is recorded and skipped;
    the next time it is tried again.

    Args:
        loaded: the model.
        samples: in the order of the results.
        measure: makes the rows of one sample.
        out: the run's folder; None to keep the rows in memory alone.
        schema: of the rows.
        settings: what decides the results beside model and samples, as JSON values.
        order: of every video's frames; see `frame_order`.
        is_open: whether the true answers need not be known.
        references: whether open questions are asked, too, whose true answer is known as a text.
        strict: a sample that cannot be read ends the run.
        overwrite: replace another run there; "other": only what of it differs.
        replica: which of the run's processes this is; each group measures its share.

    Returns:
        None on a process that does not lead.

    Raises:
        FlowjaxError: a folder that cannot be used, or that holds rows of another question or video;
            an error of `measure`; every sample failed; with `strict`, the first sample that cannot
            be read.
    """
    everything = {
        **model_settings(loaded),
        **sample_settings(samples),
        **settings,
        "frames": order,
    }

    def ask(index: int) -> tuple[Asked, str]:
        sample = samples[index]
        known = sample.question.answer is not None or (references and sample.reference)
        if not known and not is_open and not sample.problem:
            raise FlowjaxError(f"sample {sample.sample_id!r}: the true option is not known")
        return ask_sample(loaded, sample, order=order), made_of(sample)

    if isinstance(samples, Samples):
        samples.check(loaded.frames)
    for sample in samples if strict else ():
        if sample.problem:
            raise FlowjaxError(sample.problem)

    store, todo = begin(samples, out, everything, replica, schema=schema, overwrite=overwrite)
    with closing(store):
        done = len(samples) - len(todo)
        with progress_bar(
            "samples", len(samples), done=done, shown=replica.leads, lines=replica.joined
        ) as advance:
            tally = Tally(replica, advance)
            for index, pending in _ahead(replica.mine(todo), ask):
                try:
                    prepared, source = pending.result()
                except FlowjaxError as error:
                    if strict:
                        raise
                    LOG.warning("sample %s is skipped: %s", samples[index].sample_id, error)
                    if replica.writes:
                        store.fail(index, samples[index], str(error))
                    tally.add()
                    continue
                if prepared.repeated_frames:
                    LOG.warning(
                        "%s has too few frames for %d; some are repeated",
                        prepared.sample.video,
                        len(prepared.frames),
                    )
                parts: list[int | float] = []

                def part(size: int | float, parts: list[int | float] = parts) -> None:
                    if not replica.joined:
                        parts.append(size)
                        advance(size)

                rows = measure(prepared, part)
                if replica.writes:
                    store.write(index, schema.empty_table() if rows is None else rows, source)
                tally.add(1 - sum(parts))
            tally.wait(len(todo))
        if not replica.leads:
            return None
        rows, failures = store.finish()
    if failures.num_rows == len(samples):
        raise FlowjaxError(f"no sample could be read; the first: {failures['error'][0].as_py()}")
    return Results(rows, failures, store.settings)


def _ahead(
    indices: Sequence[int], ask: Callable[[int], tuple[Asked, str]]
) -> Iterator[tuple[int, Future[tuple[Asked, str]]]]:
    """Samples in order; the next is asked in a thread while one is in use."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending: deque[tuple[int, Future[tuple[Asked, str]]]] = deque()
        for index in indices:
            pending.append((index, pool.submit(ask, index)))
            if len(pending) > 1:
                yield pending.popleft()
        yield from pending
