"""FLOPs and bytes of a sweep's prefill and windows."""

from dataclasses import dataclass, field

from flowjax.models.attention import band_rows
from flowjax.models.cost import LayerCost
from flowjax.models.decoder import DecoderConfig
from flowjax.sweeps.working import Program, Working

KERNEL_ROWS = 64
"""More rows than this attend by a kernel. Fewer are many windows' that share kept keys."""

KERNEL_SCORES = 1 << 20
"""Scores of a head from which a kernel attends: below, all heads' stay in a GPU's cache (50 MB)."""


def by_kernel(batch: int, rows: int, length: int) -> bool:
    """Whether the rows of a batch attend by a kernel where the decoder has one.

    length: positions that they read, padding included.
    """
    return batch == 1 and rows > KERNEL_ROWS and rows * length >= KERNEL_SCORES


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of a sweep's pieces.

    value_bytes: bytes of one value of a hidden state.
    kernel: whether the decoder attends by a kernel.
    platform: where it runs, as JAX names it.
    """

    config: DecoderConfig
    value_bytes: int
    kernel: bool = False
    platform: str = "cpu"
    _layer: LayerCost = field(init=False)
    _linear: int = field(init=False)
    _working: Working = field(init=False)

    def __post_init__(self) -> None:
        """Count a row's products once: planning asks for them very often."""
        layer = LayerCost(self.config)
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_linear", layer.row + layer.source)
        object.__setattr__(self, "_working", Working(self.config, self.value_bytes))

    def _reading(self, edges: int) -> int:
        return self.config.heads * self._layer.edge * edges

    def layers(self, layers: int, rows: int, edges: int) -> int:
        """`layers` whole layers of `rows` rows that compute `edges` attention scores a head."""
        return layers * (rows * self._linear + self._reading(edges))

    def last_layer(self, rows: int, sources: int) -> int:
        """The last layer of a window: one row beyond keys and values, then its logits."""
        return (
            (rows - 1) * self._layer.source
            + self._linear
            + self._reading(sources)
            + self._layer.logits
        )

    def window(self, start: int, rows: int, edges: int, sources: int) -> int:
        """One window from layer `start`: `edges` scores in each layer but the last."""
        return self.layers(self.config.layers - 1 - start, rows, edges) + self.last_layer(
            rows, sources
        )

    def prefill(self, rows: int, edges: int) -> int:
        """A forward over the whole prompt with logits of one position."""
        return self.layers(self.config.layers, rows, edges) + self._layer.logits

    def kept_bytes(self, length: int) -> int:
        """Hidden states, keys and values of every layer; the prompt, its rotations and logits."""
        config = self.config
        values = (config.layers + 1) * config.width + config.layers * self._layer.cached
        of_position = values * self.value_bytes + 8 * config.head_dim + 12
        return length * of_position + 4 * config.vocabulary

    def batch_bytes(self, batch: int, rows: int, prefix: int) -> int:
        """Working memory of `batch` windows."""
        kernel = self.kernel and by_kernel(batch, rows, rows + prefix)
        return self._working.bytes(
            Program(batch, rows, rows + prefix, kernel, prefill=False), self.platform
        )

    def prefill_bytes(self, length: int) -> int:
        """Working memory of the prefill."""
        return self._working.bytes(
            Program(1, length, length, self.kernel, prefill=True), self.platform
        )


def chunked_edges(rows: int, prefix: int) -> int:
    """Scores that `attend_causal` computes for `rows` rows after `prefix` cached ones."""
    edges, band = 0, band_rows(rows)
    for start in range(0, rows, band):
        stop = min(start + band, rows)
        edges += (stop - start) * (prefix + stop)
    return edges
