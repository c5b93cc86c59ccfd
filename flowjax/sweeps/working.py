"""Bytes that a sweep's programs hold beside parameters and kept states, by backend.

What XLA holds at a time differs between backends:

- A GPU copies a layer's parameters out of their stack before it multiplies by them, in the prefill
  those of the next products too; sums parts of products of few rows in float32; and lays out the
  prefill's keys or values anew where plain attention reads them.
- A TPU lays out the keys and values of all layers anew, with heads before rows, where windows of
  many rows attend.

A GPU's are fitted to what the compiler of an H100 allots at 7B shapes, which `tests/sweeps`
compares; other backends' are bounds: a TPU holds less, as it reads parameters where they lie.
"""

from dataclasses import dataclass

from flowjax.models.attention import CHUNK
from flowjax.models.cost import LayerCost
from flowjax.models.decoder import DecoderConfig

FEW_ROWS = 128
"""Products of no more rows than this are made in parts, so that all of a GPU has work."""
MARGIN = 1.05
"""Index arrays, alignment, and what another version of the compiler does otherwise."""


@dataclass(frozen=True)
class Program:
    """A prefill, or a batch of windows.

    size: windows. rows: computed by each. keys: read by each.
    kernel: whether rows attend by a kernel.
    """

    size: int
    rows: int
    keys: int
    kernel: bool
    prefill: bool


@dataclass(frozen=True)
class Working:
    """Working memory of programs of one decoder.

    value_bytes: bytes of one value of a hidden state.
    """

    config: DecoderConfig
    value_bytes: int

    def bytes(self, program: Program, platform: str) -> int:
        """What a program holds on a platform, as JAX names it."""
        logits = 0 if program.prefill else program.size * 4 * self.config.vocabulary
        if platform == "gpu":
            return int(MARGIN * self._gpu(program)) + logits
        held = self._elsewhere(program)
        if platform == "tpu" and not program.prefill and program.rows > CHUNK:
            held += self.config.layers * self._sources(program.keys)
        return held

    def _gpu(self, program: Program) -> int:
        """The most of three phases: projecting, attending, and the MLP."""
        config, value = self.config, self.value_bytes
        rows = program.size * program.rows
        projected = (config.heads + 2 * config.kv_heads) * config.head_dim
        states = 3 * rows * config.width * value
        matrix = config.width * config.mlp_width * value
        parts = 4 * 8 * rows if rows <= FEW_ROWS else 0
        sums = 4 * 4 * min(rows, FEW_ROWS // 2) if rows <= FEW_ROWS else 0
        project = states + (config.width + rows) * projected * value + sums * projected
        mlp = states + 2 * rows * config.mlp_width * value + parts * config.width
        mlp += matrix
        attend = states + self._sources(program.keys)
        if not program.kernel:
            attend += self._scores(program, 6)
        held = 0
        if program.prefill:
            held = matrix + config.width * projected * value
            if config.heads == config.kv_heads and not program.kernel:
                held += config.layers * self._sources(program.keys) // 2
        return max(project, attend, mlp) + held

    def _elsewhere(self, program: Program) -> int:
        """Of all phases together.

        Scores are float32 and exist up to five times (scores, masked, exponentials, weights, and
        a transposed copy), beside a mask byte.
        """
        config = self.config
        states = 4 * config.width + 3 * config.mlp_width + LayerCost(config).cached
        hidden = program.size * program.rows * states * self.value_bytes
        scores = 0 if program.kernel else self._scores(program, 20)
        layer = LayerCost(config)
        parameters = (layer.row + layer.source) // 2 * self.value_bytes
        return parameters + hidden + scores + program.size * 8 * config.vocabulary

    def _sources(self, keys: int) -> int:
        """One layer's keys and values."""
        return keys * LayerCost(self.config).cached * self.value_bytes

    def _scores(self, program: Program, each: int) -> int:
        """Of the rows that attend at a time, `each` bytes a score, and a mask byte."""
        scores = program.size * min(program.rows, CHUNK) * program.keys
        return scores * (self.config.heads * each + 1)
