"""Batches drawn ahead of their use, in processes of their own."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any

import jax

from flowjax.workers import end_with_parent

Draw = Callable[[int], Any]
"""The batch of a step; can be pickled."""


def drawers(workers: int) -> Executor:
    """Processes that draw batches; they leave the accelerator to the one that trains."""
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )


class Ahead:
    """The batches of several streams, drawn `depth` steps ahead by a pool of processes.

    A batch follows from stream and step alone, so that nothing depends on who draws it. Without a
    pool, batches are drawn when they are asked for.
    """

    def __init__(self, draws: Sequence[Draw], pool: Executor | None, depth: int) -> None:
        self._draws, self._pool, self._depth = draws, pool, depth
        self._waiting: dict[tuple[int, int], Future[Any]] = {}

    def __call__(self, stream: int, step: int) -> Any:  # noqa: ANN401 - whatever is drawn
        """The batch of a step of one of the streams."""
        if self._pool is None:
            return self._draws[stream](step)
        for later in range(step, step + self._depth):
            if (stream, later) not in self._waiting:
                self._waiting[stream, later] = self._pool.submit(self._draws[stream], later)
        return self._waiting.pop((stream, step)).result()

    def close(self) -> None:
        """Drop what was to be drawn."""
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()


def _begin() -> None:
    end_with_parent()
    jax.config.update("jax_platforms", "cpu")
