"""A converted model, run one part at a time: never more than a layer of it is in memory.

Every layer is a decoder of one layer, so what runs is `flowjax.models.decoder.Decoder` itself.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from flowjax.edges import Knockout, edge_table
from flowjax.masks import EdgeMask
from flowjax.models.attention import CHUNK, attend_causal
from flowjax.models.checkpoint import PARAMETERS, nested
from flowjax.models.decoder import Decoder
from flowjax.models.embedded import Embedded
from flowjax.models.loaded import LoadedModel
from flowjax.models.stack import layer_at
from flowjax.models.video_llm import DeepstackVideo, VideoLLM, abstract_model
from flowjax_convert.check.peer import CheckedPrompt
from flowjax_convert.verify import open_parameter


class Video(NamedTuple):
    """What a model makes of the video.

    features: as the peer's projector reads them.
    tokens: [video, width].
    deepstack: [k, video, width], see `flowjax.models.decoder.deepened`; None for most families.
    """

    features: Float[np.ndarray, "..."]
    tokens: Float[np.ndarray, "video width"]
    deepstack: Float[np.ndarray, "k video width"] | None


@dataclass(frozen=True)
class Ours:
    """A converted model whose parameters are read when they are needed.

    loaded: without parameters.
    compute: the dtype that parameters are cast to.
    """

    loaded: LoadedModel
    compute: str

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return self.loaded.config.decoder.layers

    def video(
        self,
        prompt: CheckedPrompt,
        features: Callable[[VideoLLM, Array, CheckedPrompt], Array],
    ) -> Video:
        """Vision tower and projector."""
        model = abstract_model(self.loaded.config, jnp.dtype(self.compute))
        model.vision = self._filled(model.vision, "vision")
        model.projector = self._filled(model.projector, "projector")
        pixels = jnp.asarray(prompt.pixel_values).astype(self.compute)
        seen = jax.jit(lambda vision, x: vision(x))(model.vision, pixels)
        out = jax.jit(lambda projector, x: projector(x))(model.projector, seen)
        deepstack = None
        if isinstance(out, DeepstackVideo):
            out, deepstack = out.tokens, _numpy(out.deepstack)
        return Video(_numpy(features(model, seen, prompt)), _numpy(out), deepstack)

    def token_embeddings(self, ids: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n width"]:
        """Rows of the token embedding."""
        stored = open_parameter(self._folder, "decoder/embedding/embedding")
        rows, place = np.unique(ids, return_inverse=True)
        read = np.asarray(stored[rows].read().result()).astype(self.compute)
        return read[place].astype(np.float32)

    def each_layer(self) -> Iterator[Decoder]:
        """Every layer, as a decoder of one layer."""
        # Without the embeddings, which a layer does not need.
        abstract = self._decoder(vocabulary=1, tied_embeddings=True)
        for index in range(self.layers):
            yield self._filled(abstract, "decoder", index)

    def head(self) -> Decoder:
        """A decoder whose final norm and vocabulary projection are the model's."""
        return self._filled(self._decoder(), "decoder")

    def _decoder(self, **changes: Any) -> Decoder:  # noqa: ANN401 - fields of the configuration
        """A decoder of one layer, with shapes in place of parameters."""
        config = dataclasses.replace(self.loaded.config.decoder, layers=1, **changes)
        return nnx.eval_shape(lambda: Decoder(config, jnp.dtype(self.compute), nnx.Rngs(0)))

    @property
    def _folder(self) -> Path:
        return self.loaded.path / PARAMETERS

    def _filled(self, module: Any, name: str, layer: int = 0) -> Any:  # noqa: ANN401 - any module
        """The module with its parameters read from disk; of stacked ones as many as it has."""
        graph, state = nnx.split(module)
        leaves, _ = jax.tree.flatten_with_path(nnx.to_pure_dict(state))
        filled = {}
        for keys, leaf in leaves:
            path = "/".join(str(key.key) for key in keys)
            stored = open_parameter(self._folder, f"{name}/{path}")
            where = tuple(slice(0, size) for size in leaf.shape)
            if name == "decoder" and path.startswith("layers/"):
                where = (slice(layer, layer + 1), *where[1:])
            read = stored[where].read().result()
            filled[path] = jnp.asarray(np.asarray(read).astype(self.compute))
        nnx.replace_by_pure_dict(state, nested(filled))
        return nnx.merge(graph, state)


@dataclass(frozen=True, eq=False)
class Passage:
    """What all sequences have in common as they go through the layers.

    group: the token group of every position.
    rope_position: int32 [axes, n].
    length: of the prompt.
    deepstack: [k, n, width].
    """

    group: Int[Array, " n"]
    rope_position: Int[Array, "axes n"]
    length: int
    deepstack: Float[Array, "k n width"] | None

    def through(
        self, layer: Decoder, index: int, x: Array, allowed: Bool[np.ndarray, "layers 1 g g"]
    ) -> Array:
        """The output of one layer."""
        added = None
        if self.deepstack is not None and index < len(self.deepstack):
            added = self.deepstack[index : index + 1]
        prompt = Embedded(x, self.rope_position, added, jnp.asarray(self.length, jnp.int32))
        return _layer(layer, prompt, EdgeMask(self.group, jnp.asarray(allowed[index : index + 1])))


@jax.jit
def _layer(layer: Decoder, prompt: Embedded, mask: EdgeMask) -> Array:
    return layer(prompt, mask).output


def parts(
    decoder: Decoder, x: Array, passage: Passage, rows: Int[np.ndarray, " rows"]
) -> dict[str, Float[np.ndarray, "rows width"]]:
    """What the parts of one layer give, by the names of `flowjax_convert.check.recorded.PARTS`."""
    layer = layer_at(decoder.layers, 0)
    position = jnp.arange(len(x), dtype=jnp.int32)
    rotary = decoder.config.rope(passage.rope_position, passage.length)
    mask = EdgeMask(jnp.zeros_like(position), jnp.ones((1, 1, 1), bool))
    attended = attend_causal(
        layer.queries(x, rotary),
        layer.sources(x, position, rotary),
        [],
        mask,
        CHUNK,
        decoder.config.window,
    )
    normed = layer.attention_norm(x)
    attention = layer.output(attended.reshape(len(x), -1))
    return {
        "query": _numpy(layer.query(normed)[rows]),
        "key": _numpy(layer.key(normed)[rows]),
        "value": _numpy(layer.value(normed)[rows]),
        "attention": _numpy(attention[rows]),
        "mlp": _numpy((layer.finish(x, attended) - x - attention)[rows]),
    }


def tables(
    prompt: CheckedPrompt, knockouts: Sequence[Knockout], layers: int
) -> list[Bool[np.ndarray, "layers 1 g g"]]:
    """What may be read in every layer: without a knockout, and under each."""
    layout = prompt.encoded.layout
    every = [(), *((knockout,) for knockout in knockouts)]
    return [edge_table(layout, cut, layers=layers, heads=1) for cut in every]


def _numpy(x: Array) -> Float[np.ndarray, "..."]:
    return np.asarray(x.astype(jnp.float32))
