"""Which processes run the same samples together, and on which devices."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

from flowjax.errors import FlowjaxError
from flowjax.hosts import together
from flowjax.mesh import MeshShape

POLL = 0.5
"""Seconds between looks at how far the others are."""


@dataclass(frozen=True)
class Replica:
    """A group of processes that runs its share of the samples; one process by itself by default.

    index, count: which of how many groups.
    writes: whether this process is the one of its group that writes.
    leads: whether it is process 0, which finishes the run and says what was found.
    mesh: devices of the group; None for the one device that is used.
    joined: whether there are other processes.
    """

    index: int = 0
    count: int = 1
    writes: bool = True
    leads: bool = True
    mesh: Mesh | None = None
    joined: bool = False

    @property
    def across(self) -> bool:
        """Whether one copy of the model lies on devices of several processes."""
        own = together.process()
        return self.mesh is not None and any(d.process_index != own for d in self.mesh.devices.flat)

    def mine(self, todo: Sequence[int]) -> list[int]:
        """Those of the samples to do that this group does."""
        return list(todo[self.index :: self.count])

    def share(self, value: Callable[[], Any]) -> Any:  # noqa: ANN401 - any JSON value
        """See `together.share`."""
        return together.share(value) if self.joined else value()

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - any JSON value
        """See `together.gather`."""
        return together.gather(value) if self.joined else [value]


ALONE = Replica()


@dataclass
class Tally:
    """Counts the samples that all groups have done.

    tell: called on process 0 with how many more there are than when it was last called.
    """

    replica: Replica
    tell: Callable[[int | float], object]
    _told: int = 0
    _key: str = ""

    def __post_init__(self) -> None:
        """Name the number that all processes share."""
        if self.replica.joined:
            self._key = together.key_for("tally")

    def add(self, one: int | float = 1) -> int:
        """Count a sample, or what is left of it, or with 0 look; how many there are now."""
        if not self.replica.joined:
            self.tell(one)
            return 0
        now = together.count(self._key, round(one) if self.replica.writes else 0)
        if self.replica.leads:
            self.tell(now - self._told)
            self._told = now
        return now

    def wait(self, total: int) -> None:
        """On process 0, until all are done."""
        while self.replica.joined and self.replica.leads and self.add(0) < total:
            time.sleep(POLL)


def replica(shape: MeshShape | None) -> Replica:
    """The group of this process.

    One copy of the model lies on devices of one process, or on all devices of several: of the
    least processes that hold whole copies a group is made. Samples are divided over the groups,
    windows of a sweep over the copies of one.

    Args:
        shape: of all devices of all processes; None for as many copies as there are devices, or
            for the default device where there is one process.

    Raises:
        FlowjaxError: another number of devices, or copies that do not divide the processes.
    """
    joined = together.processes() > 1
    if not joined and shape is None:
        return ALONE
    whole = (shape or MeshShape(None)).over(jax.device_count())
    process, local, model = together.process(), jax.local_device_count(), whole.model
    if local % model == 0:
        mesh = MeshShape(None, model).mesh(jax.local_devices()) if shape or local > 1 else None
        return Replica(process, together.processes(), True, process == 0, mesh, joined)
    if model % local:
        raise FlowjaxError(
            f"--mesh {whole}: every process has {local} devices; model must divide them or be a "
            "multiple of them"
        )
    size = model // local
    index = process // size
    devices = [one for one in jax.devices() if one.process_index // size == index]
    mesh = MeshShape(1, model).mesh(sorted(devices, key=lambda one: (one.process_index, one.id)))
    groups = together.processes() // size
    return Replica(index, groups, process % size == 0, process == 0, mesh, joined)
