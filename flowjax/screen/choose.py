"""Which of very many screened gates are worth an exact knockout."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowjax.edges import Edge, Knockout
from flowjax.errors import FlowjaxError

KEYS = ["edge", "layer", "head"]


class Gate(NamedTuple):
    """One edge in one layer (0-based) and one head; head -1 is all of them."""

    edge: str
    layer: int
    head: int

    @property
    def knockout(self) -> Knockout:
        """What closing it is."""
        heads = None if self.head < 0 else (self.head,)
        return Knockout((Edge.parse(self.edge),), (self.layer,), heads)


@dataclass(frozen=True)
class Choice:
    """A gate and why it is checked: among the `top` effects, or drawn at `random` from the rest."""

    gate: Gate
    why: str


def mean_effects(table: pa.Table) -> dict[Gate, float]:
    """Mean predicted effect of every gate over the samples that have it.

    table: columns edge, layer, head and predicted.
    """
    means = table.group_by(KEYS, use_threads=False).aggregate([("predicted", "mean")])
    columns = [means[name].to_pylist() for name in (*KEYS, "predicted_mean")]
    return {Gate(*key): value for *key, value in zip(*columns, strict=True)}


def choose(effects: dict[Gate, float], top: int, *, seed: int = 0) -> tuple[Choice, ...]:
    """The `top` gates with the largest mean effects, and as many at random from the rest.

    Equal effects go by the gate's name, so that the same effects give the same choice.

    Raises:
        FlowjaxError: `top` is less than 2, or there are fewer gates.
    """
    if not 2 <= top <= len(effects):
        raise FlowjaxError(f"--top {top}: give 2 to {len(effects)}, the number of gates")
    ranked = sorted(effects, key=lambda gate: (-abs(effects[gate]), gate))
    rest = ranked[top:]
    drawn = np.random.default_rng(seed).permutation(len(rest))[:top]
    return (
        *(Choice(gate, "top") for gate in ranked[:top]),
        *(Choice(rest[index], "random") for index in sorted(drawn.tolist())),
    )


def predictions(table: pa.Table, gates: Sequence[Gate]) -> dict[str, dict[Gate, float]]:
    """Predicted effect of some gates, by sample and gate.

    table: columns sample_id, edge, layer, head and predicted.
    """
    rows = table.filter(pc.field("edge").isin(sorted({gate.edge for gate in gates})))
    wanted = set(gates)
    found: dict[str, dict[Gate, float]] = {}
    columns = [rows[name].to_pylist() for name in ("sample_id", *KEYS, "predicted")]
    for sample, edge, layer, head, value in zip(*columns, strict=True):
        gate = Gate(edge, layer, head)
        if gate in wanted:
            found.setdefault(sample, {})[gate] = value
    return found
