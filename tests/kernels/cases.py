"""Random attention problems, and attention in numpy by its definition."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from flowjax.kernels.pruned_attention import BlockMap, block_map
from flowjax.masks import EdgeMask


@dataclass(frozen=True)
class Problem:
    """Inputs of attention, on the host."""

    group: np.ndarray
    allowed: np.ndarray
    query_position: np.ndarray
    key_position: np.ndarray
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """bool [tables, q, k]."""
        target, source = self.group[self.query_position], self.group[self.key_position]
        causal = self.query_position[:, None] >= self.key_position[None, :]
        return self.allowed[:, target[:, None], source[None, :]] & causal

    @property
    def mask(self) -> EdgeMask:
        return EdgeMask(jnp.asarray(self.group), jnp.asarray(self.allowed))

    def blocks(self, block_q: int, block_k: int) -> BlockMap:
        return block_map(
            self.group,
            self.allowed,
            self.query_position,
            self.key_position,
            block_q=block_q,
            block_k=block_k,
        )

    def arrays(self, dtype: str) -> tuple:
        """Query, key and value, and their positions, for an implementation."""
        rows = (jnp.asarray(x, dtype) for x in (self.query, self.key, self.value))
        return *rows, jnp.asarray(self.query_position), jnp.asarray(self.key_position)

    def attend(self, dtype: str) -> np.ndarray:
        """Attention by definition, float64, of inputs rounded to a dtype."""
        query, key, value = (
            np.asarray(jnp.asarray(x, dtype), np.float64)
            for x in (self.query, self.key, self.value)
        )
        heads = query.shape[1]
        key, value = (np.repeat(x, heads // key.shape[1], axis=1) for x in (key, value))
        output = np.zeros(query.shape)
        for head in range(heads):
            allowed = self.edges[head % len(self.edges)]
            scores = query[:, head] @ key[:, head].T / np.sqrt(query.shape[2])
            for row in np.flatnonzero(allowed.any(1)):
                chosen = np.flatnonzero(allowed[row])
                weights = np.exp(scores[row, chosen] - scores[row, chosen].max())
                output[row, head] = weights @ value[chosen, head] / weights.sum()
        return output


def problem(
    length: int,
    *,
    groups: int,
    width: int,
    heads: int = 2,
    kv_heads: int = 1,
    tables: int = 1,
    density: float = 0.4,
    gathered: bool = False,
    scattered: bool = False,
    dead_groups: int = 0,
    seed: int = 0,
) -> Problem:
    """A random problem.

    Args:
        length: positions; each has a random group.
        tables: 1, or one per head.
        density: of allowed entries in the table.
        gathered: take two thirds of the positions as query rows, three quarters as key rows.
        scattered: groups in random order, not in runs.
        dead_groups: groups whose rows may read nothing.
    """
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, length).astype(np.int32)
    allowed = rng.random((tables, groups, groups)) < density
    allowed[:, :dead_groups] = False
    query_position = key_position = np.arange(length, dtype=np.int32)
    if gathered:
        query_position = np.sort(rng.permutation(query_position)[: max(1, length * 2 // 3)])
        key_position = np.sort(rng.permutation(key_position)[: max(1, length * 3 // 4)])
    return Problem(
        group if scattered else np.sort(group),
        allowed,
        query_position,
        key_position,
        rng.standard_normal((len(query_position), heads, width)),
        rng.standard_normal((len(key_position), kv_heads, width)),
        rng.standard_normal((len(key_position), kv_heads, width)),
    )
