"""Attention by block maps, in every way that a decoder is used."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxprs_in_params

from flowjax.masks import DenseMask, EdgeMask
from flowjax.models.decoder import Decoder, DecoderConfig, Keep
from flowjax.models.embedded import Embedded
from flowjax.models.flash import BlockedMask, kernel_here
from flowjax.models.rope import Rope

ROWS, LAYERS, HEADS = 300, 3, 4
CONFIG = DecoderConfig(
    vocabulary=20,
    width=16,
    mlp_width=24,
    layers=LAYERS,
    heads=HEADS,
    kv_heads=2,
    head_dim=8,
    norm_eps=1e-5,
    rope=Rope(8, 1e4),
    qkv_bias=False,
    qk_norm=False,
    tied_embeddings=True,
    window=None,
)
PLAIN = Decoder(CONFIG, jnp.dtype("float32"), nnx.Rngs(0))
KERNEL = nnx.clone(PLAIN)
KERNEL.kernel = "xla"
X = jax.random.normal(jax.random.key(0), (ROWS, CONFIG.width))


def mask(heads):
    """Random edges between 5 groups, whose own are kept."""
    random = np.random.default_rng(heads)
    allowed = random.random((LAYERS, heads, 5, 5)) < 0.5
    allowed[..., np.arange(5), np.arange(5)] = True
    return EdgeMask(jnp.asarray(np.arange(ROWS) // 61), jnp.asarray(allowed))


@jax.jit
def logits(decoder, x, mask=None):
    return decoder.logits(decoder(Embedded.of(x), mask).output)


@pytest.mark.parametrize("heads", [1, HEADS])
def test_a_mask_with_maps_means_the_same(heads):
    plain, blocked = mask(heads), KERNEL.blocked(mask(heads))
    assert isinstance(blocked, BlockedMask)
    expected = logits(PLAIN, X, plain)
    np.testing.assert_allclose(logits(KERNEL, X, blocked), expected, atol=1e-5)
    # A decoder without a kernel reads the mask in it; a kernel without maps is not used.
    np.testing.assert_allclose(logits(KERNEL, X, plain), expected, atol=1e-6)
    assert np.abs(expected - logits(KERNEL, X)).max() > 1e-3


def test_masks_that_can_have_no_maps_stay_as_they_are():
    dense = DenseMask(jnp.ones((LAYERS, 1, ROWS, ROWS), bool))
    assert KERNEL.blocked(dense) is dense
    plain = mask(1)
    assert PLAIN.blocked(plain) is plain
    jax.jit(lambda mask: KERNEL.blocked(mask).at(0).allowed)(plain)  # has no values to map


def test_maps_of_as_many_rows_share_code():
    one = KERNEL.blocked(mask(1))
    other = KERNEL.blocked(EdgeMask(one.mask.group // 2, one.allowed[::-1]))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    shapes = [[leaf.shape for leaf in jax.tree.leaves(mask)] for mask in (one, other)]
    assert shapes[0] == shapes[1]


def test_a_gradient_is_that_of_plain_attention():
    """Attention by a kernel has a gradient: plain attention's, some rows at a time."""

    def answer(x, decoder, mask):
        return jax.nn.logsumexp(logits(decoder, x, mask)[-1])

    for edges in (None, mask(1)):
        blocked = None if edges is None else KERNEL.blocked(edges)
        expected = jax.grad(answer)(X, PLAIN, edges)
        np.testing.assert_allclose(jax.grad(answer)(X, KERNEL, blocked), expected, atol=1e-5)
        assert np.abs(expected[0]).max() > 0


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16, np.dtype(jnp.bfloat16)])
def test_the_kernel_of_a_machine(monkeypatch, dtype):
    """For bfloat16, however it is said, on what has a kernel; float32 stays exact."""
    assert kernel_here(128, dtype) is None, "a CPU has none"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert kernel_here(128, dtype) == "mosaic_tpu"
    assert kernel_here(128, "float32") is None
    assert kernel_here(512, dtype) is None


def test_samples_in_a_batch():
    several = jnp.stack([X, X[::-1]])
    by_kernel = jax.vmap(lambda x: logits(KERNEL, x))(several)
    one_by_one = [logits(PLAIN, x) for x in several]
    np.testing.assert_allclose(by_kernel, one_by_one, atol=1e-5)


def equations(jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.parametrize("decoder", [PLAIN, KERNEL], ids=["plain", "kernel"])
def test_nothing_is_rows_by_rows_and_loops_are_not_unrolled(decoder):
    counts = []
    for rows in (4096, 16_384):

        def run(x):
            prompt = Embedded.of(x)
            trace = decoder(prompt, keep=Keep(hidden=True, sources=True))
            return decoder.last_logits(trace.output, prompt)

        closed = jax.make_jaxpr(run)(jax.ShapeDtypeStruct((rows, CONFIG.width), "float32"))
        found = list(equations(closed.jaxpr))
        counts.append(len(found))
        largest = max(out.aval.size for one in found for out in one.outvars)
        assert largest < rows * rows
    assert counts[1] <= counts[0] + 5
