"""FLOPs and bytes of pieces of a decoder."""

from dataclasses import dataclass, field

from flowjax.models.attention import CHUNK
from flowjax.models.decoder import DecoderConfig


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of pieces of a decoder.

    value_bytes: bytes of one value of a hidden state.
    """

    config: DecoderConfig
    value_bytes: int
    _linear: int = field(init=False)

    def __post_init__(self) -> None:
        """Count a row's products once."""
        config = self.config
        attention = 2 * config.width * config.head_dim * (config.heads * 2 + config.kv_heads * 2)
        object.__setattr__(self, "_linear", attention + 6 * config.width * config.mlp_width)

    @property
    def _sources(self) -> int:
        return 4 * self.config.width * self.config.kv_heads * self.config.head_dim

    def _reading(self, edges: int) -> int:
        return 4 * self.config.heads * self.config.head_dim * edges

    def layers(self, layers: int, rows: int, edges: int) -> int:
        """`layers` whole layers of `rows` rows that compute `edges` attention scores a head."""
        return layers * (rows * self._linear + self._reading(edges))

    def last_layer(self, rows: int, sources: int) -> int:
        """The last layer of a window: one row beyond keys and values, then its logits."""
        return (
            (rows - 1) * self._sources
            + self._linear
            + self._reading(sources)
            + 2 * self.config.width * self.config.vocabulary
        )

    def window(self, start: int, rows: int, edges: int, sources: int) -> int:
        """One window from layer `start`: `edges` scores in each layer but the last."""
        return self.layers(self.config.layers - 1 - start, rows, edges) + self.last_layer(
            rows, sources
        )

    def prefill(self, rows: int, edges: int) -> int:
        """A forward over the whole prompt with logits of one position."""
        head = 2 * self.config.width * self.config.vocabulary
        return self.layers(self.config.layers, rows, edges) + head

    def kept_bytes(self, length: int) -> int:
        """Hidden states, keys and values of every layer."""
        config = self.config
        per_position = config.width + 2 * config.kv_heads * config.head_dim
        return config.layers * length * per_position * self.value_bytes

    def batch_bytes(self, batch: int, rows: int, prefix: int) -> int:
        """Working memory of `batch` windows: hidden states, MLP, one chunk's scores, logits.

        Scores are float32 and exist up to five times (scores, masked, exponentials, weights, and
        a transposed copy), beside a mask byte.
        Each layer's parameters are copied out of their stack once for all windows.
        """
        config = self.config
        kv = 2 * config.kv_heads * config.head_dim
        hidden = rows * (4 * config.width + 3 * config.mlp_width + kv) * self.value_bytes
        scores = min(rows, CHUNK) * (rows + prefix) * (config.heads * 20 + 1)
        layer = self._linear // 2 * self.value_bytes
        return layer + batch * (hidden + scores + 8 * config.vocabulary)


def causal_edges(first_row: int, length: int) -> int:
    """Edges that causality allows into rows `first_row` to `length - 1`, diagonal included."""
    return (length * (length + 1) - first_row * (first_row + 1)) // 2


def chunked_edges(rows: int, prefix: int) -> int:
    """Scores that `attend_causal` computes for `rows` rows after `prefix` cached ones."""
    edges = 0
    for start in range(0, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        edges += (stop - start) * (prefix + stop)
    return edges
