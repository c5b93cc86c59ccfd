"""PyTorch's FlexAttention on a group mask, compiled, for comparison on a GPU."""

from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import Bool, Float32, Int
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


class FlexAttention:
    """FlexAttention over the block mask of a causal group mask.

    Args:
        query, key, value: [n, heads, d], on the GPU.
        group: of every position.
        table: target group x source group.
        calls: how many one start runs, one after the other, as one CUDA graph.
    """

    def __init__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        group: Int[np.ndarray, " n"],
        table: Bool[np.ndarray, "1 g g"],
        *,
        calls: int = 1,
    ) -> None:
        groups = torch.from_numpy(np.asarray(group, np.int64)).cuda()
        allowed = torch.from_numpy(table[0]).cuda()

        def edge(
            _batch: torch.Tensor, _head: torch.Tensor, target: torch.Tensor, source: torch.Tensor
        ) -> torch.Tensor:
            return (target >= source) & allowed[groups[target], groups[source]]

        length = len(group)
        self._mask = create_block_mask(
            edge, None, None, length, length, device="cuda", _compile=True
        )
        self._rows = [
            torch.from_dlpack(rows).transpose(0, 1)[None].contiguous()
            for rows in (query, key, value)
        ]
        attention: Any = torch.compile(flex_attention, dynamic=False)
        attention(*self._rows, block_mask=self._mask)  # compiled, which no graph may record
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for _ in range(calls):
                self._output = attention(*self._rows, block_mask=self._mask)

    def __call__(self) -> torch.Tensor:
        """Start the calls: the last one's output [1, heads, n, d]."""
        self._graph.replay()
        return self._output

    def output(self) -> Float32[np.ndarray, "n heads d"]:
        """What it computes, on the host."""
        return self()[0].transpose(0, 1).float().cpu().numpy()


def synchronize(_output: torch.Tensor) -> None:
    """Wait for the GPU."""
    torch.cuda.synchronize()
