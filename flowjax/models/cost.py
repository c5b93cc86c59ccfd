"""FLOPs of a decoder's matrix products, two for each multiplication, and bytes of its cache."""

from dataclasses import dataclass

from flowjax.models.decoder import DecoderConfig


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs, per row and per edge; every other count is made of these."""

    config: DecoderConfig

    @property
    def row(self) -> int:
        """FLOPs of a row's query, output projection and MLP."""
        config = self.config
        attention = 4 * config.width * config.heads * config.head_dim
        return attention + 6 * config.width * config.mlp_width

    @property
    def source(self) -> int:
        """FLOPs of a row's key and value."""
        return 4 * self.config.width * self.config.kv_heads * self.config.head_dim

    @property
    def edge(self) -> int:
        """FLOPs of one edge in one head: its score, and its part of the weighted sum."""
        return 4 * self.config.head_dim

    @property
    def logits(self) -> int:
        """FLOPs of one row's logits, once in a decoder."""
        return 2 * self.config.width * self.config.vocabulary

    @property
    def cached(self) -> int:
        """Values of a row's key and value."""
        return 2 * self.config.kv_heads * self.config.head_dim
