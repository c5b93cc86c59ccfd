"""The batches of instruction tuning, each of which follows from seed and step alone."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int64

from flowjax.data.videochat2 import Instructions
from flowjax.errors import FlowjaxError
from flowjax.files import send
from flowjax.mesh import DATA
from flowjax.paths import is_remote
from flowjax.train.instruct import Instructed

FAILURES = "failures.jsonl"
TRIES = 32
"""Videos that are tried in the place of one that cannot be read."""


@dataclass(frozen=True)
class Stream:
    """Examples in an order that is drawn anew for every epoch.

    entries: all there are.
    example: makes one of an entry and the order of its questions.
    batch: examples of a step, over all processes.
    rows: which of them this process gives.
    seed: of the order.
    workers: threads that decode.
    folder: of the run; what could not be read is noted in it.
    """

    entries: Sequence[Instructions]
    example: Callable[[Instructions, Int64[np.ndarray, " turns"]], Instructed]
    batch: int
    rows: range
    seed: int
    workers: int
    folder: Path
    _failed: dict[str, str] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, step: int) -> Instructed:
        """The examples of a step.

        Raises:
            FlowjaxError: too many videos in turn that cannot be read, or videos of another shape.
        """
        places = [step * self.batch + row for row in self.rows]
        with ThreadPoolExecutor(self.workers) as pool:
            examples = list(pool.map(self._at, places))
        first = examples[0]
        for one in examples:
            if one.pixel_values.shape != first.pixel_values.shape:
                raise FlowjaxError(
                    f"pixel values have the shapes {list(first.pixel_values.shape)} and "
                    f"{list(one.pixel_values.shape)}: this family keeps the proportions of "
                    "videos, and those of a batch must have the same; give batch.frame_size"
                )
        return jax.tree.map(lambda *parts: np.stack(parts), *examples)

    def _at(self, place: int) -> Instructed:
        """The example at a place; where its video cannot be read, the next one that can."""
        count = len(self.entries)
        epoch, index = divmod(place, count)
        order = np.random.default_rng([self.seed, epoch]).permutation(count)
        for attempt in range(min(TRIES, count)):
            entry = self.entries[int(order[(index + attempt) % count])]
            questions = np.random.default_rng([self.seed, epoch, index, attempt])
            try:
                return self.example(entry, questions.permutation(len(entry.turns)))
            except FlowjaxError as error:
                self._note(entry.name, str(error))
        raise FlowjaxError(
            f"{min(TRIES, count)} entries in turn cannot be used, the last because: "
            f"{next(reversed(self._failed.values()))}"
        )

    def _note(self, name: str, problem: str) -> None:
        with self._lock:
            if name in self._failed:
                return
            self._failed[name] = problem
            line = json.dumps({"entry": name, "problem": problem}) + "\n"
            path = self.folder / failures_of(jax.process_index())
            if is_remote(path):
                text = path.read_text(encoding="utf-8") if path.exists() else ""
                send((text + line).encode(), path)
            else:
                with path.open("a", encoding="utf-8") as file:
                    file.write(line)


def failures_of(process: int) -> str:
    """The file of what one of the run's processes could not use."""
    return f"failures.{process}.jsonl" if process else FAILURES


def local_rows(mesh: Mesh, batch: int) -> range:
    """Which examples of a batch this process gives: those of its devices.

    Raises:
        FlowjaxError: the batch cannot be divided over the mesh.
    """
    if batch % mesh.shape[DATA]:
        raise FlowjaxError(
            f"batch.size {batch} cannot be divided over {mesh.shape[DATA]} copies; give a multiple"
        )
    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    slices = sharding.addressable_devices_indices_map((batch,)).values()
    bounds = [index[0].indices(batch) for index in slices if index is not None]
    return range(min(start for start, *_ in bounds), max(stop for _, stop, _ in bounds))
