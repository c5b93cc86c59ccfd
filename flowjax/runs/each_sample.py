"""The loop that every analysis shares: decode ahead, measure a sample, store its rows."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
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
from flowjax.runs.store import MemoryStore, Overwrite, RunStore

LOG = logging.getLogger(__name__)

Measure = Callable[[Asked, Advance], pa.Table | None]
"""Makes the rows of a sample, None if the sample is not among those asked for.

It may call `advance` with parts of 1 while it works.
"""

Answer = Callable[[Asked], tuple[pa.Table, bool]]
"""Says in the metadata of no rows how a sample is answered, and whether it is asked for."""


@dataclass(frozen=True, eq=False)
class AnswersFirst:
    """That all samples are answered before rows of any are made.

    answer: how one is.
    tell: called with the columns of `flowjax.runs.answered.ACCURACY` when all are, unless rows of
        earlier versions do not say it.
    """

    answer: Answer
    tell: Callable[[pa.Table], object]


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
    first: AnswersFirst | None = None,
    replica: Replica = ALONE,
) -> Results | None:
    """Measure every sample and store its rows in the folder `out` (see `RunStore`).

    While one sample is measured, the next is decoded and preprocessed. A run that was interrupted
    goes on after its last finished sample. A sample that cannot be read is recorded and skipped;
    the next time it is tried again.

    With `first`, and more than one sample, those that are not among the ones asked for are done
    when they are answered; the others are read again to be measured.

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
        first: that all are answered before any is measured.
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
        reader = _Reader(samples, ask, store, strict, replica)
        if first is not None and len(samples) > 1:
            todo = _answer_all(reader, todo, first)
        for index, asked, source, advance in reader.each(todo, "samples"):
            rows = measure(asked, advance)
            if replica.writes:
                store.write(index, schema.empty_table() if rows is None else rows, source)
        if not replica.leads:
            return None
        rows, failures = store.finish()
    if failures.num_rows == len(samples):
        raise FlowjaxError(f"no sample could be read; the first: {failures['error'][0].as_py()}")
    return Results(rows, failures, store.settings)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads samples, and records those that cannot be read; warned: those that were warned of."""

    samples: Sequence[Sample]
    ask: Callable[[int], tuple[Asked, str]]
    store: MemoryStore | RunStore
    strict: bool
    replica: Replica
    warned: set[int] = field(default_factory=set)

    def each(self, todo: Sequence[int], what: str) -> Iterator[tuple[int, Asked, str, Advance]]:
        """Those of `todo` that can be read, in order, with the digest of what each is made of.

        `what` is what a progress bar counts, which the last may be called to advance by parts.
        Among several processes these are the ones of this group, and the bar counts all groups'.
        """
        total, leads, joined = len(self.samples), self.replica.leads, self.replica.joined
        with progress_bar(
            what, total, done=total - len(todo), shown=leads, lines=joined
        ) as advance:
            tally = Tally(self.replica, advance)
            for index, pending in _ahead(self.replica.mine(todo), self.ask):
                parts: list[int | float] = []

                def part(size: int | float, parts: list[int | float] = parts) -> None:
                    if not joined:
                        parts.append(size)
                        advance(size)

                try:
                    asked, source = pending.result()
                except FlowjaxError as error:
                    self._fail(index, error)
                else:
                    self._warn(index, asked)
                    yield index, asked, source, part
                tally.add(1 - sum(parts))
            tally.wait(len(todo))

    def _fail(self, index: int, error: FlowjaxError) -> None:
        if self.strict:
            raise error
        LOG.warning("sample %s is skipped: %s", self.samples[index].sample_id, error)
        if self.replica.writes:
            self.store.fail(index, self.samples[index], str(error))

    def _warn(self, index: int, asked: Asked) -> None:
        if asked.repeated_frames and index not in self.warned:
            self.warned.add(index)
            LOG.warning(
                "%s has too few frames for %d; some are repeated",
                asked.sample.video,
                len(asked.frames),
            )


def _answer_all(reader: _Reader, todo: Sequence[int], first: AnswersFirst) -> list[int]:
    """Answer all samples, tell how, and return those of `todo` that are to be measured."""
    store, replica, measured = reader.store, reader.replica, list[int]()

    def stored() -> list[int]:
        found = [i for i in todo if i in store.answered and i not in store.finished]
        return [i for i in found if store.answered[i][0] == made_of(reader.samples[i])]

    known = replica.share(stored)
    rest = [index for index in todo if index not in set(known)]
    for index, asked, source, _ in reader.each(rest, "answers"):
        empty, counts = first.answer(asked)
        if counts:
            measured.append(index)
        if replica.writes:
            (store.answer if counts else store.write)(index, empty, source)
    every = replica.gather(measured)

    def told() -> list[int]:
        accuracy = store.accuracy(anew=replica.joined)
        if accuracy is not None:
            first.tell(accuracy)
        return sorted({*known, *(index for one in every for index in one)})

    return replica.share(told)


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
