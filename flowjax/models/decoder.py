"""A causal decoder whose attention takes an explicit edge mask.

One implementation for the pre-norm, rotary, gated-MLP family (Llama and its relatives); what
differs between them is in `DecoderConfig`. Written for one sequence `[tokens, width]`; `vmap` adds
windows and samples.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from flowjax.kernels.pruned_attention import Implementation
from flowjax.masks import EdgeMask, Mask
from flowjax.models.attention import CHUNK, Sources, attend
from flowjax.models.edit import Edit, Site, Sites, sites, unchanged
from flowjax.models.embedded import Embedded
from flowjax.models.flash import BlockedMask, attend_rows, blocked, make_maps
from flowjax.models.rope import Rotary, RotaryEmbedding, rotate
from flowjax.models.stack import layer_at, stacked
from flowjax.precision import PRECISION


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and variants of a decoder; no default, so that none is silently assumed.

    window: positions that a row reads at most, itself the last (a sliding window); None for all.
    positions: that it was made to tell apart, as far as its configuration says.
    """

    vocabulary: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    rope: RotaryEmbedding
    qkv_bias: bool
    qk_norm: bool
    tied_embeddings: bool
    window: int | None
    positions: int | None = None


class Keep(NamedTuple):
    """Which intermediates a forward returns beside its output.

    hidden: every layer's input.
    sources: every layer's keys and values.
    attention: attention weights of these rows (indices into the forward's rows).
    outputs: what every layer computes at these sites, after any edit (see `flowjax.models.edit`).
    """

    hidden: bool = False
    sources: bool = False
    attention: Int[Array, " r"] | None = None
    outputs: tuple[Site, ...] = ()


NOTHING = Keep()


class Trace(NamedTuple):
    """What a forward returns.

    output: [n, width], the last layer's output before the final norm.
    hidden: [layers, n, width], the input of every layer (the first is the embeddings).
    sources: keys and values [layers, n, kv_heads * d], heads side by side as layers make them and
        kernels read them: a TPU would lay out others anew.
    attention: float32 [layers, heads, r, n].
    rotary: the rotation of every row.
    outputs: by site, [layers, n, width], or [layers, n, heads, d] for `heads`.
    """

    output: Float[Array, "n width"]
    hidden: Float[Array, "layers n width"] | None
    sources: tuple[Float[Array, "layers n kv_width"], Float[Array, "layers n kv_width"]] | None
    attention: Float[Array, "layers heads r n"] | None
    rotary: Rotary
    outputs: dict[str, Float[Array, "layers n ..."]]


class DecoderLayer(nnx.Module):
    """One pre-norm block: attention, then a SiLU-gated MLP."""

    def __init__(self, config: DecoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        def linear(inputs: int, outputs: int, bias: bool = False) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                use_bias=bias,
                dtype=dtype,
                param_dtype=dtype,
                precision=PRECISION,
                rngs=rngs,
            )

        q_width = config.heads * config.head_dim
        kv_width = config.kv_heads * config.head_dim
        self.attention_norm = rms_norm(config.width, config, dtype, rngs)
        self.query = linear(config.width, q_width, config.qkv_bias)
        self.key = linear(config.width, kv_width, config.qkv_bias)
        self.value = linear(config.width, kv_width, config.qkv_bias)
        self.output = linear(q_width, config.width)
        head_norm = functools.partial(rms_norm, config.head_dim, config, dtype, rngs)
        self.query_norm = head_norm() if config.qk_norm else None
        self.key_norm = head_norm() if config.qk_norm else None
        self.mlp_norm = rms_norm(config.width, config, dtype, rngs)
        self.gate = linear(config.width, config.mlp_width)
        self.up = linear(config.width, config.mlp_width)
        self.down = linear(config.mlp_width, config.width)
        self.head_dim = config.head_dim

    def sources(
        self, x: Float[Array, "n width"], position: Int[Array, " n"], rotary: Rotary
    ) -> Sources:
        """Keys and values of the rows `x`."""
        normed = self.attention_norm(x)
        key, value = self._heads(self.key(normed)), self._heads(self.value(normed))
        if self.key_norm is not None:
            key = self.key_norm(key)
        return Sources(rotate(key, rotary), value, position)

    def queries(self, x: Float[Array, "n width"], rotary: Rotary) -> Float[Array, "n heads d"]:
        """Queries of the rows `x`."""
        query = self._heads(self.query(self.attention_norm(x)))
        if self.query_norm is not None:
            query = self.query_norm(query)
        return rotate(query, rotary)

    def finish(
        self,
        x: Float[Array, "n width"],
        attended: Float[Array, "n heads d"],
        at: Sites = unchanged,
    ) -> Float[Array, "n width"]:
        """Output projection, residual and MLP of the rows `x`, edited on the way."""
        attended = at("heads", attended)
        x = x + at("attention", self.output(attended.reshape(len(x), -1)))
        normed = self.mlp_norm(x)
        return x + at("mlp", self.down(nnx.silu(self.gate(normed)) * self.up(normed)))

    def _heads(self, x: Float[Array, "n projected"]) -> Float[Array, "n heads d"]:
        return x.reshape(len(x), -1, self.head_dim)


def rms_norm(width: int, config: DecoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """Root-mean-square norm over the last axis, with statistics in float32."""
    return nnx.RMSNorm(width, epsilon=config.norm_eps, dtype=dtype, param_dtype=dtype, rngs=rngs)


def deepened(
    x: Float[Array, "n width"],
    deepstack: Float[Array, "k n width"] | None,
    layer: int | Int[Array, ""],
) -> Float[Array, "n width"]:
    """The output `x` of layer `layer` with what is added to it after that layer.

    deepstack: added after each of the first k layers: features of earlier vision layers at video
        positions, zeros elsewhere (DeepStack, Meng et al. 2024, arXiv 2406.04334); None: nothing.
    """
    if deepstack is None:
        return x
    last = len(deepstack) - 1
    return x + jnp.where(layer <= last, deepstack[jnp.minimum(layer, last)], 0)


class Decoder(nnx.Module):
    """Token embedding, stacked layers, final norm and vocabulary projection.

    kernel: the implementation of pruned attention that rows attend by where their mask can have
        block maps (see `flowjax.models.flash`); None for plain attention. Whoever knows where the
        parameters lie chooses it: kernels are not divided over devices.
    mesh: that the parameters lie on; None for one device.
    """

    def __init__(self, config: DecoderConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.kernel: Implementation | None = None
        self.mesh: Mesh | None = None
        self.embedding = nnx.Embed(
            config.vocabulary, config.width, dtype=dtype, param_dtype=dtype, rngs=rngs
        )
        self.layers = stacked(lambda rngs: DecoderLayer(config, dtype, rngs), config.layers, rngs)
        self.norm = rms_norm(config.width, config, dtype, rngs)
        self.unembedding = (
            None
            if config.tied_embeddings
            else nnx.Linear(
                config.width,
                config.vocabulary,
                use_bias=False,
                dtype=dtype,
                param_dtype=dtype,
                precision=PRECISION,
                rngs=rngs,
            )
        )

    def __call__(
        self,
        prompt: Embedded,
        mask: Mask | None = None,
        *,
        keep: Keep = NOTHING,
        edit: Edit | None = None,
        chunk: int = CHUNK,
        remat: bool = False,
    ) -> Trace:
        """Run every layer over a whole prompt.

        Args:
            prompt: what is read, at positions 0 to n - 1.
            mask: edges per layer; `allowed` has leading axes [layers, heads or 1]. None cuts
                nothing. `Decoder.blocked` gives one the maps that the kernel needs.
            keep: intermediates to return.
            edit: other values in place of what the layers compute; None changes nothing and
                costs nothing.
            chunk: rows of plain attention computed at a time (see `attend_causal`).
            remat: keep only every layer's input for a backward pass, which computes the rest anew.
        """
        position = jnp.arange(len(prompt.x), dtype=jnp.int32)
        rotary = self.config.rope(prompt.rope_position, prompt.last + 1)
        if mask is None:
            mask = self._uncut(len(prompt.x))

        window = self.config.window

        def step(x: Array, index: Array) -> tuple[Array, tuple]:
            layer = layer_at(self.layers, index)
            sources = layer.sources(x, position, rotary)
            query = layer.queries(x, rotary)
            edges = mask.at(index)
            rows = keep.attention
            kept = (
                x if keep.hidden else None,
                tuple(part.reshape(len(x), -1) for part in sources[:2]) if keep.sources else None,
                None
                if rows is None
                else attend(query[rows], position[rows], [sources], edges, window=window).weights,
            )
            attended = attend_rows(query, sources, edges, chunk=chunk, window=window)
            changed, outputs = sites(edit, index), {}

            def at(site: Site, value: Array) -> Array:
                value = changed(site, value)
                if site in keep.outputs:
                    outputs[site] = value
                return value

            x = at("residual", deepened(layer.finish(x, attended, at), prompt.deepstack, index))
            return x, (*kept, outputs)

        output, (hidden, sources, attention, outputs) = jax.lax.scan(
            jax.checkpoint(step) if remat else step, prompt.x, jnp.arange(self.config.layers)
        )
        return Trace(output, hidden, sources, attention, rotary, outputs)

    def kernel_for(self, length: int) -> Implementation | None:
        """The kernel that rows of a prompt attend by; kernels know no sliding windows."""
        window = self.config.window
        return self.kernel if window is None or window >= length else None

    def blocked(self, mask: Mask) -> Mask:
        """A whole prompt's mask with what the kernel needs, if it can have it, else as it is.

        Maps are made of the mask's values: inside of compiled functions it has none.
        """
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(mask))
        if traced or not isinstance(mask, EdgeMask):
            return mask
        kernel = self.kernel_for(len(mask.group))
        return mask if kernel is None else blocked(mask, kernel, self.config.head_dim)

    def _uncut(self, length: int) -> Mask:
        """Nothing is cut; the kernel's maps follow from the length."""
        config, kernel = self.config, self.kernel_for(length)
        group = np.zeros(length, np.int32)
        allowed = np.ones((config.layers, 1, 1, 1), bool)
        mask = EdgeMask(jnp.asarray(group), jnp.asarray(allowed))
        maps = None
        if kernel is not None:
            maps = make_maps(group, allowed, kernel, config.head_dim)
        return mask if maps is None else BlockedMask(mask, maps)

    def last_logits(
        self, x: Float[Array, "n width"], prompt: Embedded
    ) -> Float[Array, " vocabulary"]:
        """Logits after a prompt's last position, of the last layer's output: float32."""
        return self.logits(x[prompt.last][None])[0]

    def logits(self, x: Float[Array, "n width"]) -> Float[Array, "n vocabulary"]:
        """Final norm and vocabulary projection: float32 [n, vocabulary]."""
        return self.whole(self.project(self.norm(x)))

    def whole(self, x: Array) -> Array:
        """The same array, all of it on every device, so that every process can read it."""
        if self.mesh is None:
            return x
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec()))

    def project(self, normed: Float[Array, "n width"]) -> Float[Array, "n vocabulary"]:
        """Vocabulary projection of rows that are already normed: float32 [n, vocabulary]."""
        if self.unembedding is None:
            logits = jnp.dot(normed, self.embedding.embedding[...].T, precision=PRECISION)
        else:
            logits = self.unembedding(normed)
        return logits.astype(jnp.float32)
