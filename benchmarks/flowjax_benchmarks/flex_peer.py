"""PyTorch's FlexAttention on group masks, compiled, for comparison on a GPU."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import Bool, Int
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from flowjax_benchmarks.kernel_inputs import Attention, Inputs
from flowjax_benchmarks.record import say


class FlexPeer:
    """FlexAttention over one prompt's rows, compiled once for all of its tables.

    Args:
        query, key, value: [n, heads, d], on the GPU.
        group: of every position.
    """

    def __init__(
        self, query: jax.Array, key: jax.Array, value: jax.Array, group: Int[np.ndarray, " n"]
    ) -> None:
        groups = torch.from_numpy(np.asarray(group, np.int64)).cuda()
        size = int(group.max()) + 1
        allowed = torch.zeros((size, size), dtype=torch.bool, device="cuda")

        def edge(
            _batch: torch.Tensor, _head: torch.Tensor, target: torch.Tensor, source: torch.Tensor
        ) -> torch.Tensor:
            return (target >= source) & allowed[groups[target], groups[source]]

        self._length, self._allowed, self._edge = len(group), allowed, edge
        self._rows = [
            torch.from_dlpack(rows).transpose(0, 1)[None].contiguous()
            for rows in (query, key, value)
        ]
        self._attention: Any = torch.compile(flex_attention, dynamic=False)

    def attention(self, table: Bool[np.ndarray, "1 g g"], calls: int) -> Callable[[], torch.Tensor]:
        """What starts calls one after the other, as one CUDA graph, over the table's block mask.

        The last call's output is [1, heads, n, d].
        """
        size = len(self._allowed)
        own = torch.from_numpy(table[0, :size, :size].copy()).cuda()
        self._allowed.copy_(own)
        mask = create_block_mask(
            self._edge, None, None, self._length, self._length, device="cuda", _compile=True
        )
        output = self._attention(*self._rows, block_mask=mask)  # compiled: no graph may record it
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                output = self._attention(*self._rows, block_mask=mask)

        def start() -> torch.Tensor:
            self._allowed.copy_(own)
            graph.replay()
            return output

        return start


def synchronize(_output: torch.Tensor) -> None:
    """Wait for the GPU."""
    torch.cuda.synchronize()


def attentions(
    inputs: Inputs, tables: Sequence[Bool[np.ndarray, "1 g g"]], seconds: float
) -> Iterable[Attention]:
    """FlexAttention of as many tables as can be prepared within so many seconds."""
    start = time.perf_counter()
    prepared = FlexPeer(*inputs.rows, inputs.layout.cell)
    for index, table in enumerate(tables):
        if time.perf_counter() - start > seconds:
            return
        say(f"FlexAttention of table {index + 1} of {len(tables)}")
        yield Attention(prepared.attention(table, inputs.shape.calls), synchronize)


def largest_difference(work: dict[str, Attention], flex: dict[str, Attention]) -> float:
    """Between what our kernel and FlexAttention compute."""
    worst = 0.0
    for name, attention in flex.items():
        theirs = attention.start()
        attention.wait(theirs)
        own = np.asarray(work[name.replace("flex", "kernel")].start(), np.float32)
        worst = max(
            worst, float(np.abs(own - theirs[0].transpose(0, 1).float().cpu().numpy()).max())
        )
    return worst
