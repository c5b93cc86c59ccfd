"""Every method's compiled prefill, and decoding after it, equals its masked form."""

import jax.numpy as jnp
import numpy as np
import pytest

from flowjax.compilation import count_compilations
from flowjax.efficiency.method import methods
from flowjax.efficiency.methods.adaptive import Adaptive
from flowjax.efficiency.methods.dycoke import DyCoke
from flowjax.efficiency.methods.exit import Exit
from flowjax.efficiency.methods.fastv import FastV
from flowjax.efficiency.methods.frames import Frames
from flowjax.efficiency.methods.full import Full
from flowjax.efficiency.methods.random_tokens import RandomTokens
from flowjax.inference.decode import decode
from flowjax.inference.policy import Policy
from flowjax.lens.read import read_logits
from flowjax.masks import DenseMask, EdgeMask
from flowjax.models.cost import LayerCost
from flowjax.models.embedded import Embedded
from tests.efficiency.prompts import prompt_of, subject_of
from tests.inference.masked import VARIANTS

EVERY = sorted(methods())


def check(prompt, setting):
    applied = setting.apply(prompt)
    masked = applied.masked().logits(prompt.decoder)
    compiled = applied.prefill()
    np.testing.assert_allclose(compiled.logits, masked, rtol=0, atol=1e-5)
    return applied, compiled


@pytest.mark.parametrize("name", EVERY)
def test_compiled_equals_masked(name):
    prompt = prompt_of(VARIANTS["gqa, biases"], deepstack=2)
    settings = methods()[name].settings(subject_of(prompt.decoder))
    check(prompt, settings[len(settings) // 2])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["mha", "qk-norm, three axes", "window"])
@pytest.mark.parametrize("name", EVERY)
def test_every_setting_equals_its_masked_form(name, variant):
    for seed, deepstack in enumerate((0, 2)):
        prompt = prompt_of(VARIANTS[variant], seed=seed, deepstack=deepstack)
        for setting in methods()[name].settings(subject_of(prompt.decoder)):
            check(prompt, setting)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastv", "random_tokens", "strict", "random_edges"])
def test_decoding_goes_on_from_what_is_kept(name):
    """As whole forwards do, whose new position is read as the last one is."""
    prompt = prompt_of(VARIANTS["gqa, biases"])
    decoder, length, token = prompt.decoder, prompt.layout.length, jnp.asarray(3)
    setting = methods()[name].settings(subject_of(decoder))[0]
    applied, compiled = check(prompt, setting)
    made, mask, _ = applied.masked()
    position = made.rope_position[:, length - 1] + 1
    longer = Embedded(
        made.x.at[length].set(decoder.embedding(token)),
        made.rope_position.at[:, length].set(position),
        None,
        jnp.asarray(length + 1),
    )
    if isinstance(mask, EdgeMask):
        mask = EdgeMask(mask.group.at[length].set(mask.group[length - 1]), mask.allowed)
    else:
        new = mask.allowed[..., length - 1, :]
        new = new.at[..., length].set(new[..., length - 1])
        mask = DenseMask(mask.allowed.at[..., length, :].set(new))
    own = applied.compiled(compiled.kept)
    logits, _ = decode(decoder, compiled.cache, own, token)
    np.testing.assert_allclose(logits, read_logits(decoder, longer, mask), rtol=0, atol=1e-5)


def test_costs_fall_from_setting_to_setting():
    prompt = prompt_of(VARIANTS["mha"])
    subject = subject_of(prompt.decoder)
    (full,) = methods()["full"].settings(subject)
    most = full.apply(prompt).cost()
    for name in EVERY:
        costs = [setting.apply(prompt).cost() for setting in methods()[name].settings(subject)]
        assert costs, name
        for dear, cheap in zip([most, *costs], costs, strict=False):
            assert 0 < cheap.flops <= dear.flops, name
            assert 0 < cheap.cache_bytes <= dear.cache_bytes, name


@pytest.mark.parametrize("setting", [FastV(2, 1.0), RandomTokens(1.0), Frames(1.0), DyCoke(0.0)])
def test_a_setting_that_keeps_everything_costs_everything(setting):
    prompt = prompt_of(VARIANTS["gqa, biases"])
    full, own = (one.apply(prompt).cost() for one in (Full(), setting))
    assert (own.flops, own.edges, own.cache_bytes) == (full.flops, full.edges, full.cache_bytes)


def test_a_second_prompt_of_the_same_shape_compiles_nothing():
    decoder = VARIANTS["mha"]
    for name in ("fastv", "prumerge", "strict", "adaptive", "exit"):
        setting = methods()[name].settings(subject_of(decoder))[-1]
        one, other = (setting.apply(prompt_of(decoder, seed=seed, more=5)) for seed in (1, 2))
        with count_compilations() as compiled:
            first = one.prefill()
        assert compiled, name
        with count_compilations() as compiled:
            second = other.prefill()
        assert not compiled, name
        assert not np.array_equal(first.logits, second.logits)


def test_an_adaptive_prefill_closes_where_the_gap_says():
    """And decoding goes on along the route."""
    prompt = prompt_of(VARIANTS["mha"])
    decoder = prompt.decoder
    costs = []
    # After the second and third of four layers they are 0.728 and 0.710.
    for threshold in (0.0, 0.72, 1.0):
        applied, compiled = check(prompt, Adaptive(Policy("option-gap", threshold, 2, ("video",))))
        costs.append(applied.cost().flops)
    assert costs[0] == Full().apply(prompt).cost().flops
    assert costs[0] > costs[1] > costs[2]
    logits, _ = decode(decoder, compiled.cache, applied.compiled(None), jnp.asarray(3))
    assert np.isfinite(logits).all()


def test_an_exit_costs_the_layers_before_it():
    prompt = prompt_of(VARIANTS["mha"])
    n, config = prompt.layout.length, prompt.decoder.config
    count = LayerCost(config)
    costs = [check(prompt, Exit(0.0, layer))[0].cost() for layer in range(3)]
    layer = n * count.row + config.heads * (n * (n + 1) // 2) * count.edge
    assert costs[1].flops - costs[0].flops == costs[2].flops - costs[1].flops == layer
    # Gaps after the second and third of four layers are 0.272 and 0.290.
    assert check(prompt, Exit(0.28, 1))[0].cost() == costs[2]
    assert {cost.cache_bytes for cost in costs} == {Full().apply(prompt).cost().cache_bytes}
