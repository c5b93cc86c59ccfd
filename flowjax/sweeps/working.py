"""Bytes that a sweep's programs hold beside parameters and kept states, by backend.

What XLA holds at a time differs between backends:

- A GPU copies a layer's parameters out of their stack before it multiplies by them, in the prefill
  those of the next products too; sums parts of products of few rows in float32; and lays out the
  prefill's keys or values anew where plain attention reads them.
- A TPU reads parameters where they lie, all but one matrix that is on its way; has few scores in
  its own memory; and lays out windows of one row over its 128 lanes.

Both are fitted to what the compilers of an H100 and a v5p allot at 7B shapes, which `tests/sweeps`
compares; a CPU's is a bound.
"""

from dataclasses import dataclass

from flowjax.models.attention import CHUNK
from flowjax.models.cost import LayerCost
from flowjax.models.decoder import DecoderConfig

FEW_ROWS = 128
"""Products of no more rows than this are made in parts, so that all of a GPU has work."""
MARGIN = 1.05
"""Index arrays, alignment, and what another version of the compiler does otherwise."""
MIB = 1 << 20
NEAR = 64 * MIB
"""Scores of no more bytes stay in a TPU's own memory once, beside those that do not."""
LANES = 128


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
        if platform == "tpu":
            return int(MARGIN * self._tpu(program)) + logits
        return self._elsewhere(program)

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

    def _tpu(self, program: Program) -> int:
        """The most of two phases: attending, and the MLP."""
        config, rows = self.config, program.size * program.rows
        sources = self._sources(program.keys)
        if rows <= FEW_ROWS:
            return self._tpu_few(program)
        states = rows * config.width * self.value_bytes
        hidden = rows * config.mlp_width * self.value_bytes
        held = 34 * MIB + hidden + 46 * states // 10
        if program.kernel:  # which reads a window's and the kept sources in one piece
            return held + (0 if program.prefill else 2 * sources)
        scores = 3.0
        if program.prefill:  # of heads that share keys they are laid out by group and by head
            scores = 1.0 if config.heads == config.kv_heads else 2.3
        attend = 34 * MIB + 3 * states + sources + int(scores * self._scores(program, 4))
        return max(held, attend)

    def _tpu_few(self, program: Program) -> int:
        """Of few rows: a matrix on its way, or scores, keys and values."""
        config, sources = self.config, self._sources(program.keys)
        alone = program.rows == 1
        rows = program.size * program.rows
        each = 4 * config.heads * program.keys
        scores = each * (LANES if alone else rows)
        matrix = config.width * config.heads * config.head_dim * self.value_bytes
        if program.kernel:
            return 3 * matrix + sources // 2
        if scores > NEAR:
            more = 11 * scores // 5 if alone else 3 * scores // 2
            return more + sources + 10 * MIB
        if alone and config.heads == config.kv_heads:
            return matrix + 2 * each * rows
        return max(matrix + scores // 2 + MIB, scores + 9 * MIB)

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
