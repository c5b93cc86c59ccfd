"""Opening a run's store, and which of its samples are still to be measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flowjax.data.sample import Sample
from flowjax.errors import FlowjaxError
from flowjax.hosts.replica import Replica
from flowjax.runs.settings import made_of
from flowjax.runs.store import MemoryStore, Overwrite, RunStore


def begin(
    samples: Sequence[Sample],
    out: Path | None,
    settings: Mapping[str, Any],
    replica: Replica,
    *,
    schema: pa.Schema,
    overwrite: Overwrite,
) -> tuple[MemoryStore | RunStore, list[int]]:
    """Open the store of a run; see `each_sample`.

    Among several processes, the first looks at the folder, makes it ready and tells the others
    what is to be done.

    Returns:
        The store, and the samples to measure: those without rows, and those whose question or
        video is another by now if they may be replaced.

    Raises:
        FlowjaxError: a folder that cannot be used, or that holds rows of another question or
            video; or none, with several processes.
    """
    if out is None:
        if replica.joined:
            raise FlowjaxError("missing --out: several processes keep their rows in one folder")
        return MemoryStore(settings, schema=schema), list(range(len(samples)))

    def opened() -> RunStore:
        size, leads = len(samples), replica.leads
        return RunStore(out, settings, size, schema=schema, overwrite=overwrite, leads=leads)

    def missing(store: RunStore) -> list[int]:
        changed = [i for i, stored in store.finished.items() if made_of(samples[i]) != stored]
        if changed and overwrite != "other":
            raise FlowjaxError(
                f"{out} holds rows of sample {samples[changed[0]].sample_id}, whose question or "
                "video has changed since; choose another --out or give --overwrite"
            )
        new = {index for index in range(len(samples)) if index not in store.finished}
        todo = sorted(new.union(changed))
        if todo and replica.joined:
            store.claim()
        return todo

    if replica.leads:
        store = opened()
        return store, replica.share(lambda: missing(store))
    todo = replica.share(list)
    return opened(), todo
